//! `skiff`: hand the arguments over and turn the outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let verb = args.get(1).map(String::as_str).unwrap_or_default();
    if verb == "confine" {
        return skiff_confine::main(std::env::args_os().skip(2));
    }
    let root = std::env::var("SKIFF_ROOT").unwrap_or_else(|_| "/var/lib/skiff".into());
    let paths = skiff::paths::Paths::new(root);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match verb {
        "daemon" => {
            let options = skiff::node::Options { paths, config: None };
            if let Err(error) = runtime.block_on(skiff::node::run(options)) {
                eprintln!("{error:?}");
                return ExitCode::FAILURE;
            }
        }
        "datastore" => {
            #[derive(clap::Parser)]
            struct Verb {
                #[command(flatten)]
                options: skiff_datastore::Options,
            }
            let verb = <Verb as clap::Parser>::parse_from(args.iter().skip(1));
            if let Err(error) = runtime.block_on(skiff_datastore::run(verb.options)) {
                eprintln!("{error:?}");
                return ExitCode::FAILURE;
            }
        }
        "get" => {
            let client = skiff_api::Client::new(paths.skiffd_socket());
            match runtime.block_on(client.get::<serde_json::Value>(&args[2])) {
                Ok(value) => println!("{}", serde_json::to_string_pretty(&value).unwrap()),
                Err(error) => eprintln!("{error}"),
            }
        }
        "post" => {
            let client = skiff_api::Client::new(paths.skiffd_socket());
            let outcome = runtime.block_on(client.post_lines(
                &args[2],
                &serde_json::json!({}),
                |line: serde_json::Value| {
                    println!("{line}");
                    true
                },
            ));
            if let Err(error) = outcome {
                eprintln!("{error}");
            }
        }
        "stage" => {
            let dist = skiff::distribution::Distribution::find().unwrap();
            let (id, dir) = skiff::distribution::stage(&dist, &paths.builds()).unwrap();
            skiff::distribution::select(&paths.builds(), &id).unwrap();
            println!("{}", dir.display());
        }
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
