//! docs/reasons.md is made from the table of reasons.

use std::{env, fs, path::Path};

use dataplane_common::reason::{Class, Reason};

const INTRODUCTION: &str = "\
# Reasons

Every packet that meets a hook is counted once, under the hook and one of these reasons. `dataplane drops`
shows those that are not zero, but for the class `forward`; `dataplane trace` tells how a packet comes to its
reason. The numbers and names do not change; new ones are added at the end.

At XDP of an uplink (`xdp-from-uplink`), what is passed comes to tc, which counts it again for what becomes of it. The
reasons from 38 to 42 are XDP's alone (`docs/xdp.md`).
";

fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    let classes = [
        (Class::Forward, "Carried by BPF (`forward`)"),
        (Class::Pass, "Left to the kernel (`pass`)"),
        (Class::Drop, "Dropped (`drop`)"),
    ];
    for (class, heading) in classes {
        text.push_str(&format!("\n## {heading}\n\n| number | reason | meaning |\n| --- | --- | --- |\n"));
        for reason in Reason::ALL.iter().filter(|reason| reason.class() == class) {
            text.push_str(&format!("| {} | `{}` | {} |\n", *reason as u32, reason.name(), reason.text()));
        }
    }
    text
}

#[test]
fn the_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    if env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(&path, document()).unwrap();
    }
    let present = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        present == document(),
        "docs/reasons.md is not what the table says: UPDATE_DOCUMENTS=1 cargo test -p dataplane-common"
    );
}
