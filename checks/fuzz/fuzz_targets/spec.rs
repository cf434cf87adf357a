//! Any bytes in place of the spec: judged, never obeyed halfway.
#![no_main]

use camino::Utf8Path;
use libfuzzer_sys::fuzz_target;
use reconciler::spec::{accept, digest, parse, validate};

fuzz_target!(|bytes: &[u8]| {
    let parsed = parse(bytes);
    assert!(
        parsed.spec.is_some() || !parsed.faults.is_empty(),
        "refused without a reason"
    );
    for fault in parsed.all_faults() {
        assert!(!fault.message.is_empty(), "a fault that says nothing");
    }
    for (name, faults) in &parsed.bad_agents {
        assert!(!faults.is_empty(), "{name} is taken out without a reason");
        let place = format!("agents.{name}");
        for fault in faults {
            assert!(fault.path.starts_with(&place), "{fault} is not in {place}");
        }
        let kept = parsed
            .spec
            .as_ref()
            .is_some_and(|spec| spec.agents.contains_key(name));
        assert!(!kept, "{name} is faulty and accepted");
    }

    let path = Utf8Path::new("/etc/hyperhive/hive.json");
    let accepted = accept(None, parsed.clone(), path);
    let again = accept(Some(&accepted), parsed.clone(), path);
    assert_eq!(
        accepted.generation, again.generation,
        "the same file twice is a change"
    );

    let Some(spec) = parsed.spec else { return };
    let text = serde_json::to_vec(&spec).expect("a spec is JSON");
    let second = parse(&text);
    let faults: Vec<String> = second.all_faults().map(ToString::to_string).collect();
    if parsed.bad_agents.is_empty() && parsed.faults.is_empty() {
        assert_eq!(validate(&spec), []);
        assert_eq!(
            faults, [""; 0],
            "an accepted spec is refused when it is written again"
        );
        let second = second.spec.expect("it was accepted");
        assert_eq!(digest(&second), digest(&spec));
        assert_eq!(second, spec);
    }
});
