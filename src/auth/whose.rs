//! Whose token it is (ruling G4): what an acquisition reads of the caller. It is known when the configuration is loaded
//! which inputs those are; their values are in the name of the grant, so that one caller's token never serves another.

use crate::expr::{Inputs, Name, Value};

/// The values that one grant's acquisition reads of its caller.
#[derive(Clone, Default)]
pub struct Whose {
    client: Vec<(Name, Value)>,
}

impl Whose {
    /// Nobody's in particular: everybody's who may use the resource.
    pub fn anybody() -> Self {
        Self::default()
    }
}

impl Inputs for Whose {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        Ok(self.client.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone()))
    }
}

impl std::fmt::Debug for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.client.iter().map(|(name, _)| name.to_string())).finish()
    }
}
