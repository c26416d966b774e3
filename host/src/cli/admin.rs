//! `aether token` and `aether join-token`.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::{
    api::view::{CreatedJoinToken, CreatedToken, NewJoinToken, NewToken},
    store::tokens::{Scope, TokenInfo},
};
use aether_core::{id::NodeId, incident::Rank};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token for a person or a program. It is shown this one time.
    Create {
        /// For people: who or what uses it.
        name: String,
        /// viewer, operator, approver, policy-author or admin.
        #[arg(long, value_parser = rank, default_value = "viewer")]
        rank: Rank,
        /// For writing metrics by OTLP, and nothing else: for a collector or a program with an OpenTelemetry SDK.
        #[arg(long, conflicts_with = "rank")]
        telemetry: bool,
        /// How many days it is good for [default: until it is deleted].
        #[arg(long)]
        days: Option<u32>,
    },
    /// The tokens that there are, without their secrets.
    List,
    /// Make a token useless.
    Delete {
        /// Its id; not its secret.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum JoinToken {
    /// Make a token with which one node joins, once.
    Create {
        /// Only for the node of this name.
        #[arg(long)]
        node: Option<String>,
        /// How many minutes it is good for.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
}

fn rank(name: &str) -> Result<Rank, String> {
    Rank::parse(name).ok_or_else(|| {
        let names = Rank::ALL.map(Rank::name).join(", ");
        format!("`{name}` is not one of {names}")
    })
}

pub(super) async fn token(token: Token, client: &Client, json: bool) -> anyhow::Result<()> {
    match token {
        Token::Create { name, rank, telemetry, days } => {
            let scope = if telemetry { Scope::Telemetry } else { Scope::Full };
            let new = NewToken { name, rank, scope, valid_for_ms: days.map(|days| u64::from(days) * 86_400_000) };
            let created: CreatedToken = client.post("tokens", &new).await?;
            if json {
                return show::json(&created);
            }
            say(&created.token);
            let what = match created.info.scope {
                Scope::Full => format!("of rank {}", created.info.rank.name()),
                Scope::Telemetry => "for metrics by OTLP alone".into(),
            };
            say(&format!("{} {what}. This is the one time that it is shown.", created.info.id));
        }
        Token::List => {
            let tokens: Vec<TokenInfo> = client.get("tokens").await?;
            if json {
                return show::json(&tokens);
            }
            let rows: Vec<_> = tokens
                .iter()
                .map(|token| {
                    [
                        token.id.0.clone(),
                        token.name.clone(),
                        match token.scope {
                            Scope::Full => token.rank.name().to_owned(),
                            Scope::Telemetry => "telemetry alone".into(),
                        },
                        show::time(token.created_at),
                        token.expires_at.map_or_else(|| "never".into(), show::time),
                    ]
                })
                .collect();
            show::table(["TOKEN", "NAME", "RANK", "MADE", "EXPIRES"], &rows);
        }
        Token::Delete { id } => {
            client.delete(&format!("tokens/{}", escaped(&id))).await?;
            if json {
                return show::json(&serde_json::json!({ "deleted": id }));
            }
            say("Deleted. It and the sign-ins made with it are of no use from now on.");
        }
    }
    Ok(())
}

pub(super) async fn join_token(join: JoinToken, client: &Client, json: bool) -> anyhow::Result<()> {
    let JoinToken::Create { node, minutes } = join;
    let new = NewJoinToken { node: node.map(NodeId), valid_for_ms: Some(u64::from(minutes) * 60_000) };
    let created: CreatedJoinToken = client.post("join-tokens", &new).await?;
    if json {
        return show::json(&created);
    }
    say(&created.token);
    say(&format!(
        "Good once, until {}. Give it to `aether-agent run --join-token-file FILE`.",
        show::time(created.expires_at)
    ));
    Ok(())
}
