//! Faults within one section.

use super::assert_refused;

#[test]
fn text_that_is_no_toml() {
    assert_refused(&[
        (
            "[node]\nname = ¦node001 # mine\n",
            &["`node001` is neither a number nor true or false; if it is text, write `\"node001\"`"],
        ),
        ("[[pool]]\ncidr = ¦172.19.0.0/16\n", &["write `\"172.19.0.0/16\"`"]),
        (
            "[[endpoint]]\naddress=¦172.19.35.2\ninterface=¦cali1\n",
            &[
                "`172.19.35.2` is \
        neither",
                "`cali1`",
            ],
        ),
        (
            "[node]\nstate-dir = ¦/run/dataplane\nname = ¦true north\n",
            &[
                "write `\"/run",
                "`true north` \
        is",
            ],
        ),
        ("[bgp]\nlisten = ¦10.141.0.1:179\n", &["`10.141.0.1:179` is neither"]),
        ("[datapath]\nmax-routes = ¦10k\ndiscover = ¦yes\n", &["`10k` is neither a number", "`yes`"]),
        ("[node]\nuplinks = [¦eth0, eth1]\n", &["string values must be quoted; put"]),
        ("[node]\nname = ¦\n", &["`name` has no value; write one behind the `=`"]),
        ("[node]\nname =¦", &["`name` has no value"]),
        ("[node]\nname = ¦# mine\nbpf-dir = \"/b\"\n", &["`name` has no value"]),
        ("[node]\nname¦\n", &["write `KEY = VALUE`"]),
        ("[node]\nname = \"node001¦\n", &["end it with `\"`"]),
        ("[node¦\nname = \"a\"\n", &["end the section's name with `]`"]),
        ("[[pool]¦\ncidr = \"172.19.0.0/16\"\n", &["end the section's name with `]]`"]),
        ("[node]\nuplinks = [\"a\" ¦\"b\"]\n", &["put `,` between"]),
        ("[node]\nname = \"a\"\n¦name = \"b\"\n", &["`name` is given a second time; keep one"]),
        ("[node]\nname = \"a\"\n[¦node]\nbpf-dir = \"/b\"\n", &["`node` is given a second time"]),
        ("[datapath]\nmax-routes = ¦007\n", &["leading zero"]),
    ]);
}

#[test]
fn faults_of_the_syntax_do_not_hide_others() {
    assert_refused(&[
        (
            "[node]\nname = ¦node001\n[datapath]\n¦max-route = 1\ndiscover = ¦yes\nmax-endpoints = ¦0\n",
            &[
                "`node001` is neither",
                "did you mean `max-routes`?",
                "`yes` is neither",
                "must be from 1 to 4194303",
            ],
        ),
        // The broken line may have been the address: that there is none is not said.
        ("[[endpoint]]\naddress = ¦172.19.35.2\ninterface = \"cali1\"\n", &["`172.19.35.2` is neither"]),
    ]);
}

#[test]
fn sections_and_keys_that_are_not_known() {
    assert_refused(&[
        ("[node]\n¦nmae = \"a\"\n", &["unknown key `nmae` in [node]; did you mean `name`?"]),
        ("[node]\n¦state_dir = \"/s\"\n", &["did you mean `state-dir`?"]),
        (
            "[log]\n¦colour = true\n",
            &["unknown key `colour` in [log]; the keys of [log] are `level`, `format`"],
        ),
        ("[node]\n¦max-routes = 1\n", &["unknown key `max-routes` in [node]; it belongs in [datapath]"]),
        ("¦[nodes]\nname = \"a\"\n", &["unknown section [nodes]; did you mean [node]?"]),
        (
            "¦[[blocks]]\ncidr = \"172.19.35.0/24\"\n",
            &["unknown section [[blocks]]; did you mean [[block]]?"],
        ),
        ("¦[firewall]\n", &["unknown section [firewall]; the sections are [node], [datapath], [[pool]]"]),
        ("¦name = \"a\"\n", &["key `name` outside every section; move it below [node]"]),
        ("¦colour = [1]\n", &["key `colour` outside every section; the sections are"]),
        ("[bgp]\nasn = 1\nrouter-id = \"1.1.1.1\"\n¦peers = 1\n", &["did you mean `peer`?"]),
        ("¦[\"a\\nb\"]\n", &["unknown section [a\\nb]"]),
    ]);
}

#[test]
fn sections_of_the_wrong_form() {
    assert_refused(&[
        ("node = ¦3\n", &["`node` is a section, not a key; write `[node]`"]),
        ("¦[[node]]\nname = \"a\"\n", &["there can be one [node] only"]),
        (
            "¦[block]\ncidr = \"172.19.35.0/24\"\n[[endpoint]]\naddress = \"172.19.35.2\"\n\
             interface = \"cali1\"\n",
            &["there can be several [[block]]"],
        ),
        ("¦[pool]\ncidr = \"172.19.0.0/16\"\n", &["there can be several [[pool]]"]),
        ("pool = [¦\"172.19.0.0/16\"]\n", &["`pool` is a section, not a key; write `[[pool]]`"]),
    ]);
}

#[test]
fn values_of_the_wrong_type() {
    assert_refused(&[
        (
            "[node]\nname = ¦1\n",
            &["`name` must be a string, not a number; write for example `name = \"node001\"`"],
        ),
        ("[node]\nuplinks = ¦\"eth0\"\n", &["must be a list of strings, not a string"]),
        ("[node]\nuplinks = [\"eth0\", ¦1]\n", &["must be a list of strings, not a number"]),
        ("[datapath]\ndiscover = ¦\"true\"\n", &["must be true or false, not a string"]),
        ("[datapath]\nmax-routes = ¦1.5\n", &["must be a whole number, not a fraction"]),
        ("[datapath]\nmax-routes = ¦[1]\n", &["must be a whole number, not a list"]),
        ("[datapath]\nmax-routes = ¦{ a = 1 }\n", &["must be a whole number, not a section"]),
        ("[log]\nlevel = ¦true\n", &["must be a string, not true or false"]),
        ("[log]\nlevel = ¦2026-01-01\n", &["must be a string, not a date"]),
    ]);
}

#[test]
fn what_must_be_there() {
    assert_refused(&[
        ("¦[[pool]]\n", &["[[pool]] has no `cidr`; add a line such as `cidr = \"172.19.0.0/16\"`"]),
        ("¦[[block]]\n", &["[[block]] has no `cidr`"]),
        ("¦¦[[endpoint]]\n", &["[[endpoint]] has no `address`", "has no `interface`"]),
        (
            "[[route]]\nto = \"172.19.36.0/24\"\nvia = \"10.141.0.2\"\n\
        ¦¦[[route]]\n",
            &["no `to`", "no `via`"],
        ),
        ("¦[[masquerade]]\n", &["[[masquerade]] has no `source`"]),
        ("¦¦[bgp]\n", &["[bgp] has no `asn`", "[bgp] has no `router-id`"]),
        (
            "[bgp]\nasn = 1\nrouter-id = \"1.1.1.1\"\n¦¦[[bgp.peer]]\n",
            &["[[bgp.peer]] has no `address`", "[[bgp.peer]] has no `asn`"],
        ),
    ]);
}

#[test]
fn numbers_out_of_range() {
    assert_refused(&[
        ("[datapath]\nmax-endpoints = ¦0\n", &["from 1 to 4194303, not `0`; the default is 4096"]),
        ("[datapath]\nmax-endpoints = ¦4194304\n", &["from 1 to 4194303"]),
        ("[datapath]\nmax-routes = ¦-1\n", &["from 1 to 16777216, not `-1`"]),
        ("[datapath]\nmax-routes = ¦16_777_217\n", &["from 1 to 16777216"]),
        ("[datapath]\nmax-routes = ¦99999999999999999999999999999999999999999\n", &["from 1 to 16777216"]),
        ("[datapath]\nmax-flows = ¦0x1000001\n", &["from 1 to 8388608, not `0x1000001`"]),
        ("[kernel]\nimport = true\ntable = ¦0\n", &["from 1 to 4294967295"]),
        ("[kernel]\nimport = true\ntable = ¦4294967296\n", &["from 1 to 4294967295"]),
    ]);
}

#[test]
fn words_that_are_no_choice() {
    assert_refused(&[
        (
            "[datapath]\nuplink-hook = ¦\"xpd\"\n",
            &["did you mean \"xdp\"? The choices are \"auto\", \"tc\", \"xdp\""],
        ),
        ("[datapath]\ntc-attach = ¦\"netfilter\"\n", &["write one of \"auto\", \"tcx\", \"clsact\""]),
        ("[log]\nlevel = ¦\"INFO\"\n", &["did you mean \"info\"?"]),
        ("[log]\nformat = ¦\"xml\"\n", &["write one of \"text\", \"json\""]),
    ]);
}

#[test]
fn names_and_paths() {
    assert_refused(&[
        ("[node]\nname = ¦\"\"\n", &["`` is no node's name"]),
        ("[node]\nname = ¦\"a b\"\n", &["`a b` is no node's name"]),
        ("[node]\nuplinks = ¦[]\n", &["`uplinks` is an empty list; name at least one, or remove the line"]),
        ("[node]\nuplinks = [\"eth0\", ¦\"eth0\"]\n", &["`eth0` is listed twice"]),
        ("[node]\nuplinks = [¦\"\", ¦\"sixteen-bytes-xx\"]\n", &["it is empty", "longer than 15 bytes"]),
        (
            "[node]\nuplinks = [¦\"a/b\", ¦\"a b\", ¦\"..\"]\n",
            &[
                "`/`",
                "white space",
                "a directory's \
        name",
            ],
        ),
        ("[node]\nworkload-prefix = ¦\"\"\n", &["it is empty"]),
        ("[node]\nworkload-prefix = ¦\"a:b\"\n", &["contains `/` or `:`"]),
        ("[node]\nstate-dir = ¦\"run\"\n", &["`run` is not an absolute path"]),
        ("[node]\nbpf-dir = ¦\"\"\n", &["`` is not an absolute path"]),
        ("[node]\nbpf-dir = ¦\"/a\\u0000\"\n", &["`/a\\0` contains a control character"]),
        (
            "[node]\nstate-dir = ¦\"/a23456789/b23456789/c23456789/d23456789/e23456789/f23456789/g23456789/h23456789/i23456789/j2345\"\n",
            &["at most 94 bytes"],
        ),
    ]);
}

#[test]
fn addresses_and_prefixes() {
    assert_refused(&[
        (
            "[[pool]]\ncidr = ¦\"172.19.35.7/24\"\n",
            &["`172.19.35.7/24` has host bits set; write `172.19.35.0/24`"],
        ),
        ("[[pool]]\ncidr = ¦\"172.19.35.7\"\n", &["has no prefix length; write `172.19.35.7/32`"]),
        ("[[pool]]\ncidr = ¦\"172.19.35.0/33\"\n", &["`33` is no prefix length"]),
        ("[[pool]]\ncidr = ¦\"172.19.35.0/+24\"\n", &["unusual spelling; write `172.19.35.0/24`"]),
        ("[[pool]]\ncidr = ¦\"172.19.35/24\"\n", &["`172.19.35` is no IPv4 address"]),
        ("[[pool]]\ncidr = ¦\"fd00::/64\"\n", &["IPv6 is not supported"]),
        ("[[pool]]\ncidr = ¦\"0.0.0.0/0\"\n", &["`0.0.0.0/0` is every address"]),
        ("[[pool]]\ncidr = ¦\"0.1.0.0/16\"\n", &["overlaps 0.0.0.0/8"]),
        ("[[block]]\ncidr = ¦\"127.0.1.0/24\"\n", &["overlaps 127.0.0.0/8, which is loopback"]),
        ("[[block]]\ncidr = ¦\"169.254.7.0/24\"\n", &["link-local"]),
        ("[[route]]\nto = ¦\"224.1.0.0/24\"\nvia = ¦\"10.141.0\"\n", &["multicast", "no IPv4 address"]),
        ("[[route]]\nto = ¦\"160.0.0.0/4\"\nvia = ¦\"240.0.0.1\"\n", &["169.254.0.0/16", "reserved"]),
        ("[[endpoint]]\naddress = ¦\"169.254.1.1\"\ninterface = \"cali1\"\n", &["link-local"]),
        (
            "[[endpoint]]\naddress = ¦\"172.19.35.2/32\"\ninterface = \"cali1\"\n",
            &["is a prefix, not an address; write `172.19.35.2`"],
        ),
        ("[[endpoint]]\naddress = ¦\"::1\"\ninterface = ¦\"a/b\"\n", &["IPv6 is not supported", "`/`"]),
    ]);
}

#[test]
fn translations() {
    let ports: [(&str, &str); 6] = [
        ("50000", "is no range of ports"),
        ("0-50000", "two numbers from 1 to 65535"),
        ("50000-65536", "two numbers from 1 to 65535"),
        ("60000-50000", "ends before it begins; write \\\"50000-60000\\\""),
        ("50000-+50001", "two numbers"),
        ("-", "two numbers"),
    ];
    for (range, part) in ports {
        let text = format!("[[masquerade]]\nsource = \"172.19.0.0/16\"\nports = \"{range}\"\n");
        let error = &super::refused(&text).errors[..];
        assert_eq!((error.len(), error[0].line, error[0].column), (1, 3, 9), "{range}");
        assert!(error[0].to_string().contains(&part.replace('\\', "")), "{}", error[0]);
    }
    assert_refused(&[
        (
            "[[masquerade]]\nsource = ¦\"172.19.0.1/16\"\n\
             exclude = [\"10.0.0.0/8\", ¦\"10.1/16\", ¦\"10.0.0.0/8\"]\n",
            &["host bits", "no IPv4 address", "listed twice"],
        ),
        (
            "[[masquerade]]\nsource = \"172.19.0.0/16\"\naddress = ¦\"127.0.0.1\"\ninterface = ¦\"\"\n",
            &["loopback", "is empty"],
        ),
    ]);
}

#[test]
fn bgp() {
    assert_refused(&[
        (
            "[bgp]\nasn = ¦0\nrouter-id = ¦\"0.0.0.0\"\nlisten = ¦\"10.141.0.1\"\n\
             graceful-restart-seconds = ¦4096\n",
            &["from 1 to 4294967295", "no identifier", "with a port", "from 0 to 4095"],
        ),
        (
            "[bgp]\nasn = ¦23456\nrouter-id = \"1.1.1.1\"\nlisten = ¦\"1.1.1.1:0\"\n",
            &["RFC 6793", "with a port"],
        ),
        (
            "[bgp]\nasn = ¦4294967295\nrouter-id = \"1.1.1.1\"\naccept = [¦\"172.19.0.0\"]\n",
            &["RFC 7300", "/32"],
        ),
        (
            "[bgp]\nasn = 1\nrouter-id = \"1.1.1.1\"\n[[bgp.peer]]\naddress = ¦\"224.0.0.5\"\nasn = ¦65535\n\
             port = ¦0\npassive = ¦1\npassword-file = ¦\"secret\"\nttl-security-hops = ¦255\nhold-seconds = ¦2\nmax-prefixes = ¦0\nmax-next-hops = ¦16385\nallowas-in = ¦11\n",
            &[
                "multicast",
                "RFC 7300",
                "from 1 to 65535",
                "true or false",
                "absolute",
                "from 1 to 254",
                "RFC 4271",
                "from 1 to",
                "from 1 to 16384",
                "from 0 to 10",
            ],
        ),
    ]);
}

#[test]
fn kernel() {
    assert_refused(&[
        ("[kernel]\nimport = true\nprotocols = ¦[]\n", &["`protocols` is an empty list"]),
        (
            "[kernel]\nimport = true\nprotocols = [¦\"brid\"]\n",
            &["no routing protocol; did you mean \"bird\"?"],
        ),
        ("[kernel]\nimport = true\nprotocols = [\"bird\", ¦\"12\"]\n", &["`12` is listed twice"]),
        ("[kernel]\nimport = true\nprotocols = [¦\"0\", ¦\"256\"]\n", &["from 1 to 255", "from 1 to 255"]),
        (
            "[kernel]\nimport = true\nprotocols = [¦\"171\"]\n",
            &["marks the routes that this daemon itself writes"],
        ),
    ]);
}

#[test]
fn columns_count_characters_not_bytes() {
    assert_refused(&[
        ("# é→ß\n[node] # ключ\nname = \"é→😀\" ¦x\n", &["unexpected"]),
        (
            "log = { format = \"text\", level = ¦\"é\", ¦\"é😀\" = 1 }\n",
            &["`é` is none", "unknown key `é😀`"],
        ),
        ("\u{feff}[node]\r\nname = ¦1\r\n", &["must be a string"]),
    ]);
}
