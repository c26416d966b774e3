//! The command line as people use it.

use expect_test::expect_file;

#[test]
fn the_help_is_what_it_was() {
    expect_file!["golden/help.txt"].assert_eq(&aether_host::cli::help());
}
