//! What callers of the API meet.

use aether_host::api;
use expect_test::expect_file;

#[test]
fn the_openapi_document_is_the_one_that_clients_are_made_from() {
    let document = api::openapi().to_pretty_json().expect("a document");
    expect_file!["../api/openapi.json"].assert_eq(&format!("{document}\n"));
}
