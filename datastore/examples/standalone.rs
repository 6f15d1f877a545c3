//! Runs the datastore alone: `standalone --dir DIR --listen 127.0.0.1:2379`.

use clap::Parser;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(about = "Run the datastore alone")]
struct Arguments {
    #[command(flatten)]
    options: skiff_datastore::Options,
}

fn main() -> std::process::ExitCode {
    dqlite::memory::limit_arenas(1);
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi);
    format.with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs only file descriptors");
    match runtime.block_on(skiff_datastore::run(arguments.options)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let mut chain = format!("error: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                chain.push_str(&format!("\n  caused by: {cause}"));
                source = cause.source();
            }
            eprintln!("{chain}");
            std::process::ExitCode::FAILURE
        }
    }
}
