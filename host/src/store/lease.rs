//! Which host drives. One row says who, and under which epoch; whatever drives is written only as long as the epoch is
//! still the newest, in the same transaction, so that a host that was thought dead and was not changes nothing.
//!
//! No wall clock is compared: who waits for the lease sees by a stopwatch of its own that it is not renewed.

use super::{Error, Store, signed, unsigned};
use aether_core::time::Time;
use sqlx::{Row, Sqlite, Transaction};

/// The lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub holder: String,
    pub epoch: u64,
    /// Rises with each renewal.
    pub beat: u64,
}

impl Store {
    /// The same store for what drives under this epoch.
    pub fn under(&self, epoch: u64) -> Self {
        Self { lease: epoch, ..self.clone() }
    }

    /// The epoch that is driven under; 0 without a lease.
    pub fn lease(&self) -> u64 {
        self.lease
    }

    /// Takes the lease if nobody has it, if `holder` had it in a life before, or if it is still as `seen`. Else says who
    /// has it.
    pub async fn take_lease(&self, holder: &str, seen: Option<&Lease>, now: Time) -> Result<Result<u64, Lease>, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query("SELECT holder, epoch, beat FROM lease WHERE id = 1").fetch_optional(&mut *tx).await?;
        let known = match row {
            Some(row) => Some(Lease {
                holder: row.try_get("holder")?,
                epoch: unsigned(row.try_get("epoch")?),
                beat: unsigned(row.try_get("beat")?),
            }),
            None => None,
        };
        let free =
            known.as_ref().is_none_or(|known| known.holder.is_empty() || known.holder == holder || Some(known) == seen);
        if let (false, Some(known)) = (free, &known) {
            return Ok(Err(known.clone()));
        }
        // By the time, so that it rises even over a database that was restored from a backup.
        let epoch = u64::try_from(now.0).unwrap_or(0).max(known.map_or(0, |known| known.epoch) + 1);
        sqlx::query(
            "INSERT INTO lease (id, holder, epoch, beat) VALUES (1, ?, ?, 0)
             ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch, beat = 0",
        )
        .bind(holder)
        .bind(signed(epoch))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Ok(epoch))
    }

    /// False: another has it.
    pub async fn renew_lease(&self) -> Result<bool, Error> {
        let renewed = sqlx::query("UPDATE lease SET beat = beat + 1 WHERE id = 1 AND epoch = ? AND holder != ''")
            .bind(signed(self.lease))
            .execute(&self.pool)
            .await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Whoever waits for it need not wait any longer. Nothing that drives is written under it any more.
    pub async fn give_lease_back(&self) -> Result<(), Error> {
        sqlx::query("UPDATE lease SET holder = '', epoch = epoch + 1 WHERE id = 1 AND epoch = ?")
            .bind(signed(self.lease))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Whether what drives is still in charge, as of now.
    pub async fn drives(&self) -> Result<(), Error> {
        let row = sqlx::query("SELECT epoch FROM lease WHERE id = 1").fetch_optional(&self.pool).await?;
        self.in_charge(row.map(|row| row.try_get("epoch")).transpose()?)
    }

    /// A transaction of what drives.
    pub(super) async fn begin_driving(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        if self.lease != 0 {
            let row = sqlx::query("SELECT epoch FROM lease WHERE id = 1").fetch_optional(&mut *tx).await?;
            self.in_charge(row.map(|row| row.try_get("epoch")).transpose()?)?;
        }
        Ok(tx)
    }

    /// Whether `newest` is the epoch that is driven under.
    pub(super) fn in_charge(&self, newest: Option<i64>) -> Result<(), Error> {
        let newest = newest.map_or(0, unsigned);
        if self.lease != 0 && newest != self.lease {
            return Err(Error::NotInCharge { lease: self.lease, newest });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_000);

    #[tokio::test]
    async fn the_lease_goes_to_one_at_a_time_and_its_epoch_only_rises() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("aether.db")).await.unwrap();
        let first = store.take_lease("a", None, NOW).await.unwrap().unwrap();
        assert_eq!(first, 1_000);
        let a = store.under(first);
        a.begin_driving().await.unwrap();
        let seen = store.take_lease("b", None, NOW).await.unwrap().unwrap_err();
        assert_eq!((seen.holder.as_str(), seen.epoch), ("a", first));
        assert!(a.renew_lease().await.unwrap());
        // It was renewed since, so its holder is alive.
        let seen = store.take_lease("b", Some(&seen), NOW).await.unwrap().unwrap_err();
        let second = store.take_lease("b", Some(&seen), NOW).await.unwrap().unwrap();
        assert!(second > first);
        // A is still there, and changes nothing any more.
        assert!(!a.renew_lease().await.unwrap());
        let late = a.begin_driving().await.unwrap_err();
        assert!(matches!(late, Error::NotInCharge { lease, newest } if (lease, newest) == (first, second)), "{late:?}");
        assert!(matches!(a.drives().await.unwrap_err(), Error::NotInCharge { .. }));
        store.under(second).drives().await.unwrap();
        // What it gives back is not its own.
        a.give_lease_back().await.unwrap();
        let b = store.under(second);
        assert!(b.renew_lease().await.unwrap());
        // B again after a crash, at once, and then whoever comes after it has gone in good order.
        let again = store.take_lease("b", None, NOW).await.unwrap().unwrap();
        assert!(again > second && !b.renew_lease().await.unwrap());
        store.under(again).give_lease_back().await.unwrap();
        assert!(store.under(again).begin_driving().await.is_err());
        assert!(store.take_lease("a", None, Time(0)).await.unwrap().unwrap() > again);
    }
}
