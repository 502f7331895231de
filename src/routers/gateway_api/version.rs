//! The versions of Gateway API.

use crate::{api::canary::Canary, routers::affinity::Sides, snapshot::Kind};

/// The router of Gateway API, in one version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayApi {
    /// `v1`
    V1,
    /// `v1beta1`. It has no timeouts, no CORS and no cookie for the primary, and it does not wait until gateways accept the route.
    V1Beta1,
}

impl GatewayApi {
    /// The kind of a Canary's route in this version.
    pub fn kind(self, canary: &Canary) -> Kind {
        match self {
            Self::V1 if canary.spec.service.grpc.is_some() => Kind::GrpcRoute,
            Self::V1 => Kind::HttpRoute,
            Self::V1Beta1 => Kind::HttpRouteV1Beta1,
        }
    }

    /// The sides whose clients this version can keep.
    pub const fn sides(self) -> Sides {
        match self {
            Self::V1 => Sides::Both,
            Self::V1Beta1 => Sides::Canary,
        }
    }
}
