//! Any bytes in place of a bundle: the header is read within bounds, and what is accepted is what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reconciler::host::git::bundle::read_header;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = read_header(bytes) else { return };
    let length = usize::try_from(header.length).expect("it fits");
    assert!(length <= bytes.len(), "the header ends behind the file");
    let text = &bytes[..length];
    assert!(text.ends_with(b"\n\n"), "the header ends in the middle of a line");
    let refs = text
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter(|line| !line.is_empty() && !line.starts_with(b"-") && !line.starts_with(b"@"))
        .collect::<Vec<_>>();
    assert_eq!(refs.len(), 1, "exactly one ref is accepted");
    assert!(
        refs[0].starts_with(header.commit.to_string().as_bytes())
            || refs[0][..40].iter().any(u8::is_ascii_uppercase)
    );
    let name = &refs[0][41..];
    assert!(
        name == b"HEAD" || name.starts_with(b"refs/heads/"),
        "a ref that is no branch"
    );
    // What comes behind it does not matter.
    let alone = read_header(text).expect("the header alone is as good");
    assert_eq!(alone, header);
});
