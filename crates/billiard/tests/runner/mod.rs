//! What `cargo test` and nextest expect of a test program that has its own `main`, since it forks while it has a single thread.

use std::process::ExitCode;

/// A test by name; whether it has passed. It may as well panic.
pub(crate) type Test<'a> = (String, Box<dyn Fn() -> bool + 'a>);

/// Lists the tests, or runs those that the program's arguments ask for.
pub(crate) fn run(tests: &[Test<'_>]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--list") {
        if !has("--ignored") {
            tests.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let exact = has("--exact");
    let is_wanted = |name: &str| {
        wanted.is_empty()
            || wanted
                .iter()
                .any(|wanted| if exact { name == *wanted } else { name.contains(wanted.as_str()) })
    };
    let mut failed = false;
    for (name, body) in tests.iter().filter(|(name, _)| is_wanted(name)) {
        let passed = body();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed |= !passed;
    }
    ExitCode::from(u8::from(failed))
}
