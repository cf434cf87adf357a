//! Plants mutants in a source text, each behind a switch, so that one build holds all of them. Pure.

use std::fmt::Write as _;
use std::ops::Range;

use super::list::Mutant;

/// The environment variable that names the mutant that is awake.
pub(crate) const SWITCH: &str = "PLANTED_MUTANT";

/// What to plant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planting<'a> {
    name: &'a str,
    code: &'a str,
    becomes: &'a str,
}

impl<'a> From<&'a Mutant> for Planting<'a> {
    fn from(mutant: &'a Mutant) -> Self {
        Self {
            name: &mutant.name,
            code: &mutant.code,
            becomes: &mutant.becomes,
        }
    }
}

impl Planting<'_> {
    /// Where in `text` the part lies that is replaced.
    fn find(&self, text: &str) -> Result<Range<usize>, String> {
        let Self { name, code, .. } = self;
        let (before, part, after) = match code.split_once('«') {
            None => ("", *code, ""),
            Some((before, rest)) => {
                let Some((part, after)) = rest.split_once('»') else {
                    return Err(format!("{name}: `«` without `»`"));
                };
                (before, part, after)
            }
        };
        let whole = format!("{before}{part}{after}");
        let mut places = text.match_indices(&whole);
        match (places.next(), places.count()) {
            (Some((at, _)), 0) => {
                let start = at + before.len();
                Ok(start..start + part.len())
            }
            (None, _) => Err(format!("{name} is stale: its code is not there any more")),
            (Some(_), more) => Err(format!(
                "{name} is stale: its code is there {} times, and should be once",
                more + 1
            )),
        }
    }
}

/// The text with every mutant in it, all asleep unless [`SWITCH`] names one.
pub(crate) fn plant(text: &str, plantings: &[Planting<'_>]) -> Result<String, Vec<String>> {
    let mut places = Vec::new();
    let mut faults = Vec::new();
    for planting in plantings {
        match planting.find(text) {
            Ok(range) => places.push((range, planting)),
            Err(fault) => faults.push(fault),
        }
    }
    places.sort_by_key(|(range, _)| (range.start, range.end));
    for pair in places.windows(2) {
        let [(one, first), (other, second)] = pair else {
            continue;
        };
        if one != other && other.start < one.end {
            faults.push(format!(
                "{} and {} replace parts that overlap: let them replace the same part",
                first.name, second.name
            ));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut planted = String::new();
    let mut done = 0;
    for here in places.chunk_by(|(one, _), (other, _)| one == other) {
        let range = &here[0].0;
        planted.push_str(&text[done..range.start]);
        let of_here: Vec<&Planting<'_>> = here.iter().map(|(_, planting)| *planting).collect();
        switch(&text[range.clone()], &of_here, &mut planted);
        done = range.end;
    }
    planted.push_str(&text[done..]);
    Ok(planted)
}

/// `part`, or what one of `plantings` puts in its place while it is awake.
fn switch(part: &str, plantings: &[&Planting<'_>], out: &mut String) {
    let statements = part.trim_end().ends_with([';', '}']);
    out.push_str(if statements { "" } else { "(" });
    for Planting { name, becomes, .. } in plantings {
        // Writing to a String cannot fail.
        let _infallible = write!(
            out,
            "if ::std::env::var_os(\"{SWITCH}\").is_some_and(|awake| awake == \"{name}\") {{ {becomes} }} else "
        );
    }
    let _infallible = write!(out, "{{ {part} }}");
    out.push_str(if statements { "" } else { ")" });
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "fn f(n: u8) -> bool {\n    check(n);\n    n > 2 && n < 9\n}\n";

    fn planting(code: &'static str, becomes: &'static str) -> Planting<'static> {
        Planting {
            name: "odd",
            code,
            becomes,
        }
    }

    fn awake(name: &str) -> String {
        format!("if ::std::env::var_os(\"PLANTED_MUTANT\").is_some_and(|awake| awake == \"{name}\")")
    }

    #[test]
    fn an_expression_is_replaced_where_it_is_marked_and_only_while_awake() {
        let planted = plant(TEXT, &[planting("«n > 2» && n", "n > 3")]).expect("it is there");
        let expected = TEXT.replace(
            "n > 2",
            &format!("({} {{ n > 3 }} else {{ n > 2 }})", awake("odd")),
        );
        assert_eq!(planted, expected);
    }

    #[test]
    fn statements_are_left_out_without_becoming_an_expression() {
        let planted = plant(TEXT, &[planting("check(n);", "")]).expect("it is there");
        let expected = TEXT.replace(
            "check(n);",
            &format!("{} {{  }} else {{ check(n); }}", awake("odd")),
        );
        assert_eq!(planted, expected);
    }

    #[test]
    fn two_mutants_of_one_part_take_turns() {
        let even = Planting {
            name: "even",
            ..planting("«n > 2» &&", "n > 4")
        };
        let planted = plant(TEXT, &[planting("«n > 2» &&", "n > 3"), even]).expect("both are there");
        let expected = format!(
            "({} {{ n > 3 }} else {} {{ n > 4 }} else {{ n > 2 }}) && n < 9",
            awake("odd"),
            awake("even")
        );
        assert!(planted.contains(&expected), "{planted}");
    }

    #[test]
    fn code_that_is_missing_or_there_twice_is_stale() {
        for (code, word) in [("«n > 7» &&", "not there"), ("«(n»", "2 times")] {
            let faults = plant(TEXT, &[planting(code, "x")]).expect_err(code);
            assert!(
                faults[0].contains(word) && faults[0].contains("odd"),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn parts_that_overlap_are_refused() {
        let plantings = [
            planting("«n > 2 && n < 9»", "true"),
            planting("«n > 2» &&", "n > 3"),
        ];
        let faults = plant(TEXT, &plantings).expect_err("they overlap");
        assert!(faults[0].contains("overlap"), "{faults:?}");
    }
}
