use std::borrow::Borrow;
use std::sync::Arc;

use super::text::used_as_text;

/// Declares a text identifier that is cheap to clone and cannot be mistaken for another kind.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        used_as_text!($name);
    };
}

text_id! {
    /// The identifier of a shard, such as `shardId-000000000002`.
    ShardId
}

text_id! {
    /// The primary key of a row in the lease table: the shard id, or in multi-stream mode
    /// `<accountId>:<streamName>:<creationEpoch>:<shardId>`.
    LeaseKey
}

text_id! {
    /// The ARN of a consumer that is registered with a stream for enhanced fan-out.
    ConsumerArn
}

text_id! {
    /// The name of one worker, unique in its fleet (KCL's `workerIdentifier`).
    WorkerId
}
