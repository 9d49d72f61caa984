//! `headwater-lab`: runs scenarios with the real binaries in network namespaces, and judges them.

#[cfg(target_os = "linux")]
mod command;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    command::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("the lab makes network namespaces, which only Linux has");
    std::process::ExitCode::from(2)
}
