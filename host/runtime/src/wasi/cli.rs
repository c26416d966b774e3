//! `wasi:cli`: no arguments, no environment, no terminal, nothing to read; what is printed goes to the log.

use crate::{
    host::State,
    wasi::{
        Never,
        bindings::wasi::cli::{
            environment, exit, stderr, stdin, stdout, terminal_input, terminal_output, terminal_stderr, terminal_stdin,
            terminal_stdout,
        },
        io::{Input, Output},
        output::Printed,
    },
};
use wasmtime::component::Resource;

/// A guest ended itself in the middle of a question.
#[derive(Debug, thiserror::Error)]
#[error("called exit with status {0}")]
pub(crate) struct Exit(u8);

impl environment::Host for State {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        self.wasi()?;
        Ok(vec![])
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        self.wasi()?;
        Ok(vec![])
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        self.wasi()?;
        Ok(None)
    }
}

impl exit::Host for State {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        self.exit_with_code(u8::from(status.is_err()))
    }

    fn exit_with_code(&mut self, status_code: u8) -> wasmtime::Result<()> {
        Err(Exit(status_code).into())
    }
}

impl stdin::Host for State {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<Input>> {
        self.wasi()?;
        self.hand(Input::empty())
    }
}

impl stdout::Host for State {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<Output>> {
        self.wasi()?;
        self.hand(Output(Printed::Stdout))
    }
}

impl stderr::Host for State {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<Output>> {
        self.wasi()?;
        self.hand(Output(Printed::Stderr))
    }
}

impl terminal_input::Host for State {}

impl terminal_input::HostTerminalInput for State {
    fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl terminal_output::Host for State {}

impl terminal_output::HostTerminalOutput for State {
    fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl terminal_stdin::Host for State {
    fn get_terminal_stdin(&mut self) -> wasmtime::Result<Option<Resource<Never>>> {
        self.wasi()?;
        Ok(None)
    }
}

impl terminal_stdout::Host for State {
    fn get_terminal_stdout(&mut self) -> wasmtime::Result<Option<Resource<Never>>> {
        self.wasi()?;
        Ok(None)
    }
}

impl terminal_stderr::Host for State {
    fn get_terminal_stderr(&mut self) -> wasmtime::Result<Option<Resource<Never>>> {
        self.wasi()?;
        Ok(None)
    }
}
