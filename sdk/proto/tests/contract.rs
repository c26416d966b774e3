//! The contract, line by line: a number, a type or a name that changes shows here, and breaks every participant that
//! was built before. Refresh with `UPDATE_EXPECT=1`, and only for what was added.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use expect_test::expect_file;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, field_descriptor_proto::Label};
use std::fmt::Write as _;

#[test]
fn the_contract_is_frozen() {
    let files = protox::compile(["aether/v1/fabric.proto"], ["proto"]).unwrap();
    let mut text = String::new();
    for file in &files.file {
        describe(file, &mut text);
    }
    expect_file!["../golden/contract.txt"].assert_eq(&text);
}

fn describe(file: &FileDescriptorProto, text: &mut String) {
    writeln!(text, "package {}", file.package()).unwrap();
    for service in &file.service {
        for method in &service.method {
            let stream = |streaming| if streaming { "stream " } else { "" };
            writeln!(
                text,
                "rpc {}.{}({}{}) returns ({}{})",
                service.name(),
                method.name(),
                stream(method.client_streaming()),
                method.input_type(),
                stream(method.server_streaming()),
                method.output_type()
            )
            .unwrap();
        }
    }
    for message in &file.message_type {
        describe_message(message, "", text);
    }
    for numbered in &file.enum_type {
        describe_enum(numbered, text);
    }
}

fn describe_message(message: &DescriptorProto, outer: &str, text: &mut String) {
    let name = format!("{outer}{}", message.name());
    writeln!(text, "message {name}").unwrap();
    for field in &message.field {
        let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
        let kind = match field.type_name() {
            "" => format!("{:?}", field.r#type()).to_lowercase(),
            named => named.to_string(),
        };
        let oneof = field.oneof_index.map_or(String::new(), |index| {
            let index = usize::try_from(index).unwrap();
            format!(" in {}", message.oneof_decl[index].name())
        });
        writeln!(text, "  {} {repeated}{kind} {}{oneof}", field.number(), field.name()).unwrap();
    }
    for nested in &message.nested_type {
        describe_message(nested, &format!("{name}."), text);
    }
}

fn describe_enum(numbered: &EnumDescriptorProto, text: &mut String) {
    writeln!(text, "enum {}", numbered.name()).unwrap();
    for value in &numbered.value {
        writeln!(text, "  {} {}", value.number(), value.name()).unwrap();
    }
}
