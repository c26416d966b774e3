//! `aether token` and `aether join-token`.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::{
    api::view::{CreatedJoinToken, CreatedToken, NewJoinToken, NewToken},
    store::tokens::TokenInfo,
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
        Token::Create { name, rank, days } => {
            let new = NewToken { name, rank, valid_for_ms: days.map(|days| u64::from(days) * 86_400_000) };
            let created: CreatedToken = client.post("tokens", &new).await?;
            if json {
                return show::json(&created);
            }
            say(&created.token);
            say(&format!(
                "{} of rank {}. This is the one time that it is shown.",
                created.info.id,
                created.info.rank.name()
            ));
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
                        token.rank.name().to_owned(),
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
