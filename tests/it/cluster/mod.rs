//! Releases on a real API server: each scenario in a namespace of its own, all at once on one bed.

mod check;
mod faults;
mod gates;
mod gitops;
mod ingress;
mod inputs;
mod manifests;
mod overlays;
mod releases;
pub mod rig;
mod routes;
mod scalers;
mod survival;
mod takeover;
mod traffic;

use futures::{FutureExt, future::join_all};

use rig::{Rig, Scenario};

/// A scenario by name.
macro_rules! scenarios {
    ($rig:expr, $($module:ident :: $name:ident),+ $(,)?) => {
        vec![$(Scenario::run($rig, stringify!($name), $module::$name).boxed_local()),+]
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_on_a_real_control_plane() {
    let rig = Rig::start(&[]).await;
    let results = join_all(scenarios!(
        &rig,
        releases::a_good_version_is_promoted_step_by_step_and_a_bad_one_rolled_back,
        releases::blue_green_meets_all_traffic_once_before_it_is_promoted,
        releases::configs_are_part_of_a_version_and_the_primary_has_its_own,
        releases::the_chat_of_the_alert_provider_is_told,
        releases::a_chat_that_is_gone_is_said_on_the_canary_and_holds_up_nothing,
        releases::what_a_canary_made_goes_with_it,
        releases::a_canary_that_is_to_be_reverted_gives_back_what_it_took_over,
        releases::a_version_that_never_gets_ready_is_rolled_back,
        releases::a_new_version_under_way_starts_anew_at_once_even_while_a_hook_hangs,
        releases::going_back_to_the_promoted_version_ends_the_run,
        gates::a_release_waits_at_each_gate_until_it_is_approved,
        gates::a_user_sends_a_version_back_and_it_is_not_run_again,
        gates::a_daemon_set_is_released_and_rolled_back,
        gates::a_service_with_an_address_of_its_own_is_released,
        routes::gateway_api_shares_traffic_step_by_step_and_takes_it_back,
        routes::gateway_api_copies_requests_in_blue_green,
        routes::gateway_api_gives_the_version_to_those_who_ask_for_it,
        routes::without_a_mesh_the_version_is_judged_behind_its_own_service,
        scalers::a_scaled_object_rests_with_its_target_and_loses_none_of_its_fields,
        scalers::a_missing_scaler_is_said_and_waited_for,
        routes::istio_keeps_clients_on_the_side_that_answered_them,
        routes::gateway_api_keeps_clients_on_the_side_that_answered_them,
        routes::a_delegated_route_is_promoted_without_analysis,
        ingress::contour_copies_requests_and_shares_them,
        ingress::contour_gives_the_version_to_those_who_ask_for_it,
        ingress::nginx_shares_traffic_by_a_second_ingress,
        ingress::a_traffic_split_is_written_in_each_version,
        inputs::an_invalid_spec_is_said_and_harms_no_one,
        inputs::a_canary_that_cannot_be_read_is_said_and_heals,
        inputs::a_hostile_metrics_server_fails_checks_and_nothing_else,
        inputs::a_metrics_server_that_fails_for_a_moment_fails_no_check,
        inputs::a_missing_target_is_waited_for,
        inputs::a_route_deleted_under_way_comes_back_with_its_weights,
        inputs::the_second_canary_of_a_target_is_not_run,
        inputs::a_metric_template_is_asked_with_its_credentials,
        inputs::a_settled_canary_costs_nothing_and_a_step_three_writes,
        inputs::datadog_judges_a_release_and_why_it_cannot_is_said,
        gitops::flux_undoes_nothing_of_a_release,
        gitops::argo_cd_undoes_nothing_of_a_release,
        gitops::replicas_in_git_are_pods_that_get_no_request,
    ))
    .await;
    let corpus = manifests::are_accepted_without_loss_or_refused(rig.bed.client()).await;
    let explained = rig.explained().await;
    let built = overlays::each_is_as_described_and_accepted(&rig).await;
    let rights = rig.rights();
    let failed: Vec<String> = results
        .into_iter()
        .chain([corpus, explained, built, rights])
        .filter_map(Result::err)
        .collect();
    rig.end(failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_survives_what_happens_to_the_operator() {
    let rig = Rig::idle().await;
    let results = [
        survival::a_kill_in_the_middle_neither_adds_nor_skips_a_step(&rig).await,
        survival::a_second_operator_takes_over_when_the_leader_dies_or_stops(&rig).await,
        Scenario::run(
            &rig,
            "a-lease-is-deleted-or-stolen",
            survival::a_lease_that_is_deleted_or_stolen_stops_no_release,
        )
        .await,
    ];
    rig.end(results.into_iter().filter_map(Result::err).collect())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_needs_no_watch() {
    let rig = Rig::idle().await;
    let result = survival::what_cannot_be_watched_is_asked_for(&rig).await;
    rig.end(result.err().into_iter().collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_survives_what_happens_to_the_control_plane() {
    let rig = Rig::start(&[]).await;
    let story = survival::a_release_survives_what_happens_to_the_control_plane;
    let result = Scenario::run(&rig, "control-plane", story).await;
    rig.end(result.err().into_iter().collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_flagger_left_is_taken_over() {
    let rig = Rig::idle().await;
    let failed = takeover::what_flagger_left_is_taken_over(&rig).await;
    rig.end(failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_flagger_left_is_taken_over_with_flaggers_own_kinds_and_rights() {
    let rig = Rig::idle().await;
    rig.with_flaggers_kinds_and_rights().await.unwrap();
    let failed = takeover::what_flagger_left_is_taken_over(&rig).await;
    rig.end(failed).await;
}
