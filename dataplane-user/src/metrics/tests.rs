use std::{env, fs, path::Path};

use bytemuck::Zeroable as _;

use super::*;

const DOCUMENT: &str = "docs/metrics.md";

fn snapshot() -> Snapshot {
    let counted = |packets| Counted { packets, bytes: packets * 100 };
    let hooks = Hook::ALL.iter().flat_map(|hook| Reason::ALL.iter().map(|reason| (*hook, *reason)));
    Snapshot {
        counters: hooks.map(|(hook, reason)| (hook, reason, counted(reason as u64))).collect(),
        attached: Hook::ALL.iter().map(|hook| (*hook, 2)).collect(),
        endpoints: (3, 4096),
        next_hops: (1, 16),
        routes: (7, 1 << 20),
        offered: vec![("config", 1), ("bgp", 2), ("kernel", 4)],
        route_table_bytes: 1 << 19,
        flows: (5, 1000),
        nat: Stats { opened: 9, ..Stats::zeroed() },
        respect: Some(Respect {
            tracked: Some(70),
            carried: 60,
            offered: 65,
            renewed: 8,
            refreshed: 7,
            destroyed: 6,
            resynchronized: 1,
            left: [("helper".to_owned(), 2), ("unreachable".to_owned(), 3)].into(),
            every_packet: Vec::new(),
        }),
        peers: vec![BgpPeer {
            sessions: 3,
            prefixes_received: 4,
            prefixes_accepted: 3,
            ..BgpPeer::example()
        }],
        complaints: 2,
        started: 1_700_000_000.5,
        read: 1_700_000_001.0,
        reload_succeeded: true,
        log_lines_lost: 4,
    }
}

#[test]
fn samples_are_what_the_daemon_counted() {
    let text = text(&snapshot()).unwrap();
    let lines = [
        r#"dataplane_build_info{version="0.1.0"} 1"#,
        r#"dataplane_packets_total{hook="from-uplink",reason="no-endpoint",class="drop"} 4"#,
        r#"dataplane_bytes_total{hook="from-container",reason="to-host",class="pass"} 700"#,
        r#"dataplane_attached_interfaces{hook="from-container"} 2"#,
        r#"dataplane_routes{source="kernel"} 4"#,
        r#"dataplane_table_entries{table="endpoints"} 3"#,
        r#"dataplane_table_entries_limit{table="routes"} 1048576"#,
        "dataplane_route_table_bytes 524288",
        "dataplane_flows 5",
        "dataplane_flow_limit 1000",
        "dataplane_flows_opened_total 9",
        r#"dataplane_flows_ended_total{cause="expired"} 0"#,
        "dataplane_connections_tracked 70",
        "dataplane_connections_carried 60",
        r#"dataplane_connection_events_total{event="offered"} 65"#,
        r#"dataplane_connections_left_total{cause="helper"} 2"#,
        r#"dataplane_bgp_session_up{peer="10.141.0.2"} 1"#,
        r#"dataplane_bgp_sessions_total{peer="10.141.0.2"} 3"#,
        r#"dataplane_bgp_prefixes{peer="10.141.0.2",kind="accepted"} 3"#,
        "dataplane_complaints 2",
        "dataplane_start_time_seconds 1700000000.5",
        "dataplane_config_last_read_successful 1",
        "dataplane_log_lines_lost_total 4",
    ];
    for line in lines {
        assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// The number of series depends on the file alone: on hooks, reasons, and peers.
#[test]
fn the_number_of_series_is_bounded() {
    let text = text(&snapshot()).unwrap();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(series, 2 * Hook::ALL.len() * Reason::ALL.len() + Hook::ALL.len() + 38, "{text}");
}

/// Every name that the dashboard asks for is one that there is.
#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../../packaging/grafana/dataplane.json")).unwrap();
    let text = text(&snapshot()).unwrap();
    let known = names(&text);
    let mut queries = Vec::new();
    gather(&dashboard, &mut queries);
    assert!(queries.len() >= 8, "{queries:?}");
    for query in queries {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let asked: Vec<_> =
            query.split(|c| !is_part(c)).filter(|word| word.starts_with("dataplane_")).collect();
        assert!(!asked.is_empty(), "{query} asks for nothing");
        for name in asked {
            assert!(known.contains(name), "{query}: there is no {name}");
        }
    }
}

fn gather(value: &serde_json::Value, queries: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|item| gather(item, queries)),
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(query) if name == "expr" => queries.push(query.to_owned()),
                    _ => gather(member, queries),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(DOCUMENT);
    let present = fs::read_to_string(&path).unwrap();
    let (head, rest) = present.split_once("| --- | --- | --- |\n").expect("a table");
    let tail = rest.split_once("\n\n").map_or("", |(_, tail)| tail);
    let table = reference(&text(&snapshot()).unwrap());
    let wanted = format!("{head}| --- | --- | --- |\n{table}\n{tail}");
    if env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(&path, &wanted).unwrap();
    } else {
        assert!(
            present == wanted,
            "{DOCUMENT}: UPDATE_DOCUMENTS=1 cargo test -p dataplane-user --lib metrics"
        );
    }
}
