//! The binary `aether`: the server, a local fleet, and the command line of the API.
//!
//! Every command of the client prints a table for people, or with `--json` the API's own document for programs. Exit
//! codes: 0 done, 1 failed (one sentence on standard error says why), 2 not understood, 3 done, and the answer is no (a
//! backtest below its bars, a replay that differs, an audit that is not whole).

mod admin;
mod audit;
mod backtest;
mod break_glass;
mod breakers;
mod client;
mod decisions;
mod doctor;
mod drill;
mod gates;
mod history;
mod incidents;
mod kit;
mod nodes;
mod plugins;
mod policy;
mod registry;
mod replay;
mod request;
mod serve;
mod show;
mod slots;
mod snapshots;
mod telemetry;
mod up;
mod verbs;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use client::Client;
use std::{io::IsTerminal as _, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// The command by which the server has components compiled.
pub(crate) const COMPILE_COMPONENT: &str = "compile-component";

/// Control plane for GPU and AI infrastructure: sandboxed components decide, approved deeds are done.
#[derive(Debug, Parser)]
#[command(name = "aether", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

/// Where the host is, and how to print.
#[derive(Clone, Debug, Args)]
struct Options {
    /// The host's address [default: what `client.json` in the data folder says].
    #[arg(long, global = true, env = "AETHER_URL", help_heading = "Connection")]
    url: Option<String>,
    /// An API token [default: what `client.json` in the data folder says].
    #[arg(long, global = true, env = "AETHER_TOKEN", hide_env_values = true, help_heading = "Connection")]
    token: Option<String>,
    /// A PEM file with the authority that signed the host's certificate.
    #[arg(long, global = true, env = "AETHER_CA", help_heading = "Connection")]
    ca: Option<std::path::PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane.
    Serve(serve::Serve),
    /// Run a whole fleet on this machine: a server, two agents and a demo workload.
    Up(up::Up),
    /// How the host does.
    Status,
    /// Troubles to practise on: disturb a node for real, and see how the story goes.
    #[command(subcommand)]
    Drill(drill::Drill),
    /// The nodes of the fleet; with `show`, one of them.
    Nodes(nodes::Nodes),
    /// What can be done to the fleet; with a name, one verb with its arguments and bounds.
    Verbs(verbs::Verbs),
    /// Ask for one verb on one target: the gates judge it, and somebody else approves it.
    Request(request::Request),
    /// Incidents, newest first; with `show`, one of them.
    Incidents(incidents::Incidents),
    /// Approve a plan, after showing what it does.
    Approve(incidents::Approve),
    /// Deny a plan: nothing is done, and its incident closes.
    Deny(incidents::Approve),
    /// Have a plan that runs given up, and what it did undone, while that can be.
    CallOff(incidents::CallOff),
    /// Whether what the gates have people approve is looked at, or waved through.
    Gates,
    /// How much has begun where, and what is held back until somebody looks.
    #[command(subcommand)]
    Breaker(breakers::Breaker),
    /// Leave to approve alone, for a short time, told to everybody and reviewed by somebody else.
    #[command(subcommand)]
    BreakGlass(break_glass::Glass),
    /// What is stored of workloads, and what becomes of it.
    #[command(subcommand)]
    Snapshot(snapshots::Snapshot),
    /// Components and the slots they stand in.
    #[command(subcommand)]
    Plugin(plugins::Plugin),
    /// What stands in which slot, and the steps from candidate to active.
    #[command(subcommand)]
    Slot(slots::Slot),
    /// Files beside components, such as models.
    #[command(subcommand)]
    Assets(registry::Assets),
    /// Policy bundles.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Ask a candidate what it would have said of history, and what would have been otherwise.
    Backtest(Box<backtest::Backtest>),
    /// Telemetry of elsewhere on the host, to test candidates on.
    #[command(subcommand)]
    History(history::History),
    /// What of the telemetry needs a person.
    #[command(subcommand)]
    Telemetry(telemetry::Telemetry),
    /// Execute a recorded decision again: bit for bit, or it says where not.
    Replay(replay::Replay),
    /// Decisions that components made.
    #[command(subcommand)]
    Decisions(decisions::Decisions),
    /// API tokens.
    #[command(subcommand)]
    Token(admin::Token),
    /// Who did what, refusals included: a chain that shows what was changed in it.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Tokens with which nodes join.
    #[command(subcommand)]
    JoinToken(admin::JoinToken),
    /// Look at this machine: can Aether run here, and if not, what is to be done?
    Doctor(doctor::Doctor),
    /// The configuration file of the server.
    #[command(subcommand)]
    Config(Config),
    /// What the server calls itself for, to compile a component in a process that has little to lose.
    #[command(name = COMPILE_COMPONENT, hide = true)]
    CompileComponent,
}

#[derive(Debug, Subcommand)]
enum Config {
    /// Print a commented file with every setting at its default.
    Example,
    /// Read a file and the environment as the server would, and say what is wrong.
    Check(serve::Serve),
}

/// The exit code of what was done and came out below what was asked for.
const SHORT: u8 = 3;

/// Parses the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            let code = error
                .downcast_ref::<crate::config::Error>()
                .map(crate::config::Error::code)
                .or_else(|| error.downcast_ref::<crate::serve::Error>().map(crate::serve::Error::code))
                .or_else(|| error.downcast_ref().map(crate::plugins::backtest::Error::code))
                .or_else(|| error.downcast_ref().map(crate::plugins::replay::Error::code));
            let code = code.map_or_else(String::new, |code| format!(" [{code}]"));
            complain(&format!("aether: {}{code}", format!("{error:#}").trim_end()));
            ExitCode::FAILURE
        }
    }
}

/// The help of the whole command line, for its golden.
#[must_use]
pub fn help() -> String {
    fn tell(command: &mut clap::Command, path: &str, text: &mut String) {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        // Not what this machine's environment happens to say.
        *command = std::mem::take(command).mut_args(|argument| argument.hide_env_values(true));
        text.push_str(&format!("# {path}\n\n{}\n", command.render_long_help()));
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in names.iter().filter(|name| *name != "help") {
            if let Some(sub) = command.find_subcommand_mut(name).filter(|sub| !sub.is_hide_set()) {
                tell(sub, &path, text);
            }
        }
    }
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut text = String::new();
    tell(&mut command, "", &mut text);
    text.lines().map(str::trim_end).fold(String::new(), |text, line| text + line + "\n")
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads can be started")?;
    // A boxed future: the largest command would otherwise make a frame of all of them.
    runtime.block_on(Box::pin(act(cli)))
}

async fn act(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { options, command } = cli;
    let json = options.json;
    let client = || Client::find(&options);
    match command {
        Command::Serve(serve) => {
            log("info");
            serve::run(serve, serve::stop_signal()?).await?;
        }
        Command::Up(up) => {
            // A person reads along, and the page tells the rest.
            log("warn");
            up::run(up, serve::stop_signal()?).await?;
        }
        Command::Status => nodes::status(&client()?, json).await?,
        Command::Drill(drill) => return drill::run(drill, &client, json).await,
        Command::Nodes(nodes) => nodes::run(nodes, &client()?, json).await?,
        Command::Verbs(verbs) => verbs::run(verbs, &client()?, json).await?,
        Command::Request(request) => request::run(request, &client()?, json).await?,
        Command::Incidents(incidents) => incidents::run(incidents, &client()?, json).await?,
        Command::Approve(approve) => incidents::decide(true, approve, &client()?, json).await?,
        Command::Deny(deny) => incidents::decide(false, deny, &client()?, json).await?,
        Command::CallOff(word) => incidents::call_off(word, &client()?, json).await?,
        Command::Gates => gates::run(&client()?, json).await?,
        Command::Breaker(breaker) => breakers::run(breaker, &client()?, json).await?,
        Command::BreakGlass(glass) => break_glass::run(glass, &client()?, json).await?,
        Command::Snapshot(snapshot) => return snapshots::run(snapshot, &client()?, json).await,
        Command::Plugin(plugins::Plugin::Kit(kit)) => return kit::run(kit, json).await,
        Command::Plugin(plugins::Plugin::List) => plugins::list(&client()?, json).await?,
        Command::Slot(slot) => slots::run(slot, &client()?, json).await?,
        Command::Plugin(plugins::Plugin::Registry(command)) => registry::run(command, &client, json).await?,
        Command::Assets(assets) => registry::assets(assets, &client()?, json).await?,
        Command::Policy(policy) => return policy::run(policy, json).await,
        Command::Backtest(backtest) => return backtest::run(*backtest, client, json).await,
        Command::History(history) => history::run(history, &client()?, json).await?,
        Command::Telemetry(command) => telemetry::run(command, &client()?, json).await?,
        Command::Replay(replay) => return replay::run(replay, client, json).await,
        Command::Decisions(decisions) => decisions::run(decisions, &client()?, json).await?,
        Command::Token(token) => admin::token(token, &client()?, json).await?,
        Command::Audit(audit) => return audit::run(audit, client, json).await,
        Command::JoinToken(join) => admin::join_token(join, &client()?, json).await?,
        Command::Doctor(doctor) => return doctor::run(doctor, json).await,
        Command::Config(Config::Example) => print(crate::config::EXAMPLE),
        Command::Config(Config::Check(serve)) => {
            serve::load_config(serve.config())?;
            say("The configuration is right.");
        }
        // Nothing else runs in this process.
        Command::CompileComponent => return Ok(aether_runtime::compile::serve_child()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Structured lines on standard error; `RUST_LOG` chooses what.
fn log(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

/// A line for the person at the terminal.
fn say(line: &str) {
    print(&format!("{line}\n"));
}

/// Text as it is. A reader who has closed the pipe has seen enough.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[allow(clippy::print_stderr, reason = "the command line speaks to a person")]
fn complain(line: &str) {
    eprintln!("{line}");
}
