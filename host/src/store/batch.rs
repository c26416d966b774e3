//! Statements that go to the database together. A connection lives on a thread of its own: each statement that is waited
//! for costs two changes of thread, which on a busy machine is most of what a small transaction takes.

use super::Error;
use sqlx::{
    Arguments as _, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type, error::BoxDynError, sqlite::SqliteArguments,
};

/// Statements with their values, in order.
#[derive(Default)]
pub(super) struct Batch {
    sql: String,
    values: SqliteArguments,
    not_encoded: Option<BoxDynError>,
}

impl Batch {
    /// One more statement, whose values are bound next. Its text never holds a value.
    pub(super) fn statement(&mut self, sql: &'static str) -> &mut Self {
        if !self.sql.is_empty() {
            self.sql.push_str(";\n");
        }
        self.sql.push_str(sql);
        self
    }

    pub(super) fn bind<'v>(&mut self, value: impl Encode<'v, Sqlite> + Type<Sqlite>) -> &mut Self {
        if let Err(error) = self.values.add(value) {
            self.not_encoded.get_or_insert(error);
        }
        self
    }

    /// Runs them one after another, up to the first that fails.
    pub(super) async fn run(self, connection: &mut SqliteConnection) -> Result<(), Error> {
        if let Some(error) = self.not_encoded {
            return Err(sqlx::Error::Encode(error).into());
        }
        if !self.sql.is_empty() {
            // All of the text is from the callers' own statements.
            sqlx::query_with(AssertSqlSafe(self.sql), self.values).execute(connection).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{Connection as _, Row as _};

    #[tokio::test]
    async fn values_go_to_their_own_statements_and_what_follows_a_failure_is_not_run() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let mut batch = Batch::default();
        batch.statement("CREATE TABLE said (number BIGINT PRIMARY KEY, word TEXT)");
        for (number, word) in [(1, Some("one; DROP TABLE said")), (2, None), (3, Some("three"))] {
            batch.statement("INSERT INTO said (word, number) VALUES (?, ?)").bind(word).bind(number);
        }
        batch.statement("UPDATE said SET word = ? WHERE number = ?").bind("two").bind(2);
        batch.run(&mut connection).await.unwrap();

        let mut batch = Batch::default();
        batch.statement("INSERT INTO said (number) VALUES (?)").bind(1);
        batch.statement("DELETE FROM said");
        batch.run(&mut connection).await.unwrap_err();

        let rows = sqlx::query("SELECT word FROM said ORDER BY number").fetch_all(&mut connection).await.unwrap();
        let words: Vec<String> = rows.iter().map(|row| row.get("word")).collect();
        assert_eq!(words, ["one; DROP TABLE said", "two", "three"]);
        Batch::default().run(&mut connection).await.unwrap();
    }
}
