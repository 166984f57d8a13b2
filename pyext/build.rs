//! Takes the documentation of the Python API out of its stub, so that `help()` shows what the stub says.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

const STUB: &str = "hopgate_limiter/__init__.pyi";

fn main() {
    println!("cargo::rerun-if-changed={STUB}");
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_PYTHON").is_none() {
        return;
    }
    let stub = fs::read_to_string(STUB).expect("the stub is a part of the package");
    let out = env::var("OUT_DIR").expect("set by cargo");
    for (name, text) in documented(&stub) {
        fs::write(Path::new(&out).join(name + ".txt"), text).expect("OUT_DIR is writable");
    }
}

/// The documented names and their texts: `Limiter`, `Limiter.hit`, `client_key`. What the constructor says
/// follows what the class says.
fn documented(stub: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let (mut class, mut name) = (String::new(), String::new());
    let mut lines = stub.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        if let Some(defined) = code.strip_prefix("class ") {
            class = word(defined);
            name.clone_from(&class);
        } else if let Some(defined) = code
            .strip_prefix("def ")
            .or_else(|| code.strip_prefix("async def "))
        {
            name = match word(defined) {
                function if line == code => function,
                new if new == "__new__" => class.clone(),
                method => format!("{class}.{method}"),
            };
        } else if let Some(text) = code.strip_prefix("\"\"\"")
            && !name.is_empty()
        {
            let text = docstring(text, line.len() - code.len(), &mut lines);
            match found.iter_mut().find(|(known, _)| *known == name) {
                Some((_, before)) => {
                    write!(before, "\n\n{text}").expect("a String takes everything");
                }
                None => found.push((name.clone(), text)),
            }
            name.clear();
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The rest of a docstring, without its indentation.
fn docstring<'a>(first: &str, indent: usize, lines: &mut impl Iterator<Item = &'a str>) -> String {
    if let Some(whole) = first.strip_suffix("\"\"\"") {
        return whole.to_owned();
    }
    let rest = lines.take_while(|line| line.trim() != "\"\"\"");
    let rest: Vec<&str> = rest.map(|line| line.get(indent..).unwrap_or("")).collect();
    format!("{first}\n{}", rest.join("\n")).trim().to_owned()
}
