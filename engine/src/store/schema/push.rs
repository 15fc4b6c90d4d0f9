//! Notifications. Ids 150 to 159.

use bytes::Bytes;

use super::keyspaces;
use crate::core::num::UserNum;

keyspaces! { TABLE:
    #[doc = "The push rules of a user who changed them: the content of `m.push_rules`, as JSON."]
    150 PUSH_RULES: Users, UserNum => Bytes;
}
