//! PURE: how traffic is split, one file per dialect: what should be routed, and what is.

pub mod istio;

use std::collections::BTreeSet;

use crate::{
    api::canary::Canary,
    world::{Effect, ObjectRef, Weights, World},
};

/// The ways to route that this version speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// VirtualService and DestinationRules.
    Istio,
}

impl Dialect {
    /// The dialect of a canary's provider, or of the operator's.
    pub fn of(world: &World) -> Result<Self, String> {
        let own = world
            .canary
            .spec
            .provider
            .as_ref()
            .filter(|provider| !provider.is_empty());
        match own.unwrap_or(&world.settings.mesh_provider).as_str() {
            "istio" => Ok(Self::Istio),
            other => Err(format!("{other} is not supported yet, only istio is")),
        }
    }
}

/// The objects that say what is routed.
pub fn objects(dialect: Dialect, canary: &Canary) -> BTreeSet<ObjectRef> {
    match dialect {
        Dialect::Istio => istio::objects(canary),
    }
}

/// Makes the routes, or repairs them, with these weights: nothing, if they are as they should be.
pub fn reconcile(
    dialect: Dialect,
    world: &World,
    selector: &(String, String),
    weights: &Weights,
) -> Result<Vec<Effect>, String> {
    match dialect {
        Dialect::Istio => istio::reconcile(world, selector, weights),
    }
}

/// The weights that are routed.
pub fn read(dialect: Dialect, world: &World) -> Result<Weights, String> {
    match dialect {
        Dialect::Istio => istio::read(world),
    }
}

/// Gives back what was there before the Canary: nothing, if it is so.
pub fn restore(dialect: Dialect, world: &World) -> Option<Effect> {
    match dialect {
        Dialect::Istio => istio::restore(world),
    }
}

/// Routes these weights: nothing, if they are routed already.
pub fn set(dialect: Dialect, world: &World, weights: &Weights) -> Result<Vec<Effect>, String> {
    match dialect {
        Dialect::Istio => istio::set(world, weights),
    }
}
