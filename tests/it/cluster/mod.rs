//! Releases on a real API server. The scenarios of a test run at the same time on one control plane, each in its own namespace.
//!
//! | question | file |
//! | --- | --- |
//! | how does the operator run here? | `rig.rs` |
//! | what is a scenario, what can it change, what can it observe? | `scenario.rs`, `edits.rs`, `observations.rs` |
//! | which scenarios are there? | `releases.rs`, `actions.rs`, `client.rs`, `plan.rs`, `records.rs`, `gates.rs`, `routes.rs`, `own_routes.rs`, `ingress.rs`, `scalers.rs`, `services.rs`, `inputs.rs`, `gitops.rs`, `gitops_routes.rs`, `other_actors.rs`, `ownership.rs`, `capacity.rs`, `restore.rs`, `labels.rs` |
//! | which problems of users are played? | `field/` |
//! | which faults does a release survive? | `faults.rs`, `survival.rs`, observed by `traffic.rs` |
//! | do the tutorials that begin with another tool work as they are written? | `tutorials.rs` |
//! | can the operator replace Flagger? | `takeover.rs` |
//! | what does `flagger check` find? | `check.rs` |
//! | are manifests, overlays and rights correct? | `manifests.rs`, `overlays.rs`, `rights.rs`, `installs.rs` |
//! | can the Helm charts be installed, upgraded from Flagger's, and uninstalled? | `charts/` |

mod actions;
mod apisix;
mod appmesh;
mod capacity;
mod charts;
mod check;
mod client;
mod edits;
mod faults;
mod field;
mod gates;
mod gitops;
mod gitops_routes;
mod gloo;
mod ingress;
mod inputs;
mod installs;
mod knative;
mod kuma;
mod labels;
mod manifests;
mod observations;
mod other_actors;
mod outcome;
mod overlays;
mod own_routes;
mod ownership;
mod plan;
mod records;
mod releases;
mod restore;
mod rig;
mod rights;
mod routes;
mod scalers;
mod scenario;
mod services;
mod slow;
mod survival;
mod takeover;
mod traefik;
mod traffic;
mod tutorials;

use std::time::Duration;

use futures::{FutureExt, future::join_all};

use edits::workload;
use outcome::{Outcome, ensure, equal, text};
use rig::{FLAGGER, Rig};
use scenario::{AGAIN, Scenario};

/// The longest time that a scenario waits for one thing.
const PATIENCE: Duration = Duration::from_secs(240);

/// The scenarios with these names. With `IT_ONLY=a,b` in the environment only those whose names contain one of these texts.
macro_rules! scenarios {
    ($rig:expr, $($module:ident :: $name:ident),+ $(,)?) => {
        [$((stringify!($name), Scenario::run($rig, stringify!($name), $module::$name).boxed_local())),+]
            .into_iter()
            .filter(|(name, _)| is_chosen(name))
            .map(|(_, scenario)| scenario)
    };
}

fn only() -> Option<String> {
    std::env::var("IT_ONLY").ok()
}

fn is_chosen(name: &str) -> bool {
    only().is_none_or(|only| only.split(',').any(|part| name.contains(part)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_on_a_real_control_plane() {
    let rig = Rig::start(&[]).await;
    let scenarios = scenarios!(
        &rig,
        releases::a_good_version_is_promoted_step_by_step_and_a_bad_one_rolled_back,
        releases::blue_green_gets_all_traffic_once_before_its_promotion,
        releases::configs_are_part_of_a_version_and_the_primary_has_its_own,
        releases::the_chat_of_the_alert_provider_gets_the_alerts,
        releases::a_chat_webhook_that_is_gone_is_reported_on_the_canary_and_delays_nothing,
        releases::the_objects_of_a_canary_are_deleted_with_it,
        releases::a_canary_with_revert_on_deletion_restores_the_objects_that_it_adopted,
        releases::a_version_that_never_gets_ready_is_rolled_back,
        releases::a_newer_version_restarts_the_analysis_at_once_even_while_a_webhook_hangs,
        releases::going_back_to_the_promoted_version_ends_the_run,
        gates::a_release_waits_at_each_gate_until_it_is_approved,
        gates::a_version_that_a_webhook_rolls_back_is_not_run_again,
        gates::a_daemon_set_is_released_and_rolled_back,
        gates::a_service_with_an_address_of_its_own_is_released,
        routes::gateway_api_shares_traffic_step_by_step_and_rolls_back,
        routes::gateway_api_shares_a_tenth_of_a_percent,
        routes::gateway_api_shares_calls_of_grpc_by_a_grpc_route,
        routes::gateway_api_copies_requests_in_blue_green,
        routes::gateway_api_routes_matching_requests_to_the_canary,
        routes::without_a_mesh_the_version_is_analysed_behind_its_own_service,
        own_routes::routes_of_a_user_get_two_weights_and_nothing_else,
        own_routes::copies_of_a_users_routes_get_the_weights_and_the_routes_stay_as_they_are,
        scalers::a_scaled_object_is_paused_with_its_target_and_keeps_all_its_fields,
        scalers::a_missing_scaler_is_reported_and_waited_for,
        routes::istio_keeps_clients_on_the_version_that_answered_them,
        routes::gateway_api_keeps_clients_on_the_version_that_answered_them,
        routes::a_delegated_route_is_promoted_without_analysis,
        ingress::contour_copies_requests_and_shares_them,
        ingress::contour_routes_matching_requests_to_the_canary,
        apisix::apisix_shares_traffic_by_a_second_route,
        knative::a_knative_service_is_released_by_its_own_routes,
        kuma::kuma_shares_traffic_by_an_object_of_the_cluster,
        traefik::traefik_shares_traffic_and_repairs_keep_the_weights,
        traefik::a_traefik_service_of_the_user_is_adopted_and_given_back,
        ingress::nginx_shares_traffic_by_a_second_ingress,
        ingress::skipper_shares_traffic_by_a_second_ingress,
        gloo::gloo_shares_traffic_between_upstreams_with_the_users_settings,
        gloo::a_route_table_with_other_routes_is_adopted_only_if_its_user_says_so,
        ingress::a_traffic_split_is_written_in_each_version,
        appmesh::app_mesh_shares_traffic_step_by_step_beside_its_controller,
        appmesh::app_mesh_routes_matching_requests_to_the_canary,
        appmesh::the_older_app_mesh_shares_traffic_by_its_virtual_service,
        inputs::an_invalid_spec_is_reported_and_harms_no_other_canary,
        inputs::a_canary_that_cannot_be_parsed_is_reported_until_it_is_corrected,
        inputs::a_hostile_metrics_server_fails_checks_and_nothing_else,
        inputs::a_metrics_server_that_fails_for_a_moment_fails_no_check,
        inputs::a_missing_target_is_waited_for,
        inputs::a_route_that_is_deleted_midway_is_restored_with_its_weights,
        inputs::the_second_canary_of_a_target_is_not_run,
        ownership::an_object_of_another_owner_is_left_as_it_is_until_it_is_given_away,
        ownership::each_primary_keeps_the_config_that_its_version_passed_with,
        inputs::a_metric_template_query_has_its_credentials,
        inputs::an_idle_canary_costs_no_request_and_a_step_three_writes,
        inputs::datadog_checks_a_release_and_its_errors_are_reported,
        labels::a_deployment_made_anew_with_another_label_is_released_without_an_outage,
        labels::a_canary_with_the_labels_of_another_one_takes_none_of_its_clients,
        labels::a_run_whose_deployment_gets_the_primarys_labels_is_rolled_back,
        other_actors::an_admission_policy_that_labels_all_pods_starts_no_run_and_no_fight,
        other_actors::an_actor_that_undoes_each_write_is_named_and_met_with_growing_pauses,
        capacity::a_version_whose_pods_are_evicted_gets_its_traffic_back,
        actions::people_steer_a_release_within_the_rights_of_their_roles,
        client::a_person_on_call_needs_the_command_line_only,
        plan::a_plan_shows_the_writes_of_the_operator_and_makes_none,
        other_actors::a_release_that_may_not_write_says_so_and_goes_on_later,
        records::each_release_leaves_a_record_that_explains_it,
        records::a_release_goes_on_where_records_cannot_be_written,
        restore::a_primary_that_cannot_run_the_promoted_version_gets_its_last_one_back,
        restore::the_primary_of_a_daemon_set_gets_its_last_version_back,
        gitops::flux_reverts_nothing_of_a_release,
        gitops::argo_cd_reverts_nothing_of_a_release,
        gitops::replicas_in_git_bring_back_pods_that_get_no_request,
        gitops_routes::flux_adopts_the_weights_of_a_route_and_applies_all_else,
        gitops_routes::an_older_flux_creates_a_route_and_never_writes_it_again,
        gitops_routes::argo_cd_writes_weights_only_if_git_changes_the_route,
        gitops_routes::argo_cd_does_the_same_by_server_side_apply,
        gitops_routes::a_path_that_flux_ignores_too_early_gives_the_canary_half_of_the_requests,
        gitops_routes::the_policy_merge_of_flux_would_keep_no_weights,
        gitops_routes::each_part_of_the_recipe_for_argo_cd_keeps_the_weights,
        gitops_routes::respect_ignore_differences_would_freeze_the_rules_of_a_route,
        tutorials::a_canary_of_ingress_nginx_moves_to_gateway_api,
        tutorials::a_rollout_of_argo_rollouts_moves_to_a_canary,
        services::a_service_of_two_ports_is_given_back_to_the_byte,
        services::a_service_that_is_applied_again_is_given_back_as_applied,
    );
    let mut results = join_all(scenarios).await;
    // These scenarios run after the others: each starts with several commands, and a small machine can start only some at the same time.
    results.extend(join_all(field::scenarios(&rig)).await);
    if only().is_some() {
        let failed = results.into_iter().filter_map(Result::err);
        return rig.end(failed.collect()).await;
    }
    let corpus = manifests::are_accepted_without_loss_or_refused(rig.bed.client()).await;
    let explained = rig.explains_fields().await;
    let built = overlays::each_is_as_described_and_accepted(&rig).await;
    let rights = rights::are_used(&rig);
    let failed: Vec<String> = results
        .into_iter()
        .chain([corpus, explained, built, rights])
        .filter_map(Result::err)
        .collect();
    rig.end(failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_operator_starts_no_run_and_causes_no_outage() {
    let rig = Rig::idle().await;
    let result = field::restarts::an_operator_with_other_flags_takes_over(&rig).await;
    rig.end(result.err().into_iter().collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_survives_kills_of_the_operator_and_lost_leases() {
    let rig = Rig::idle().await;
    let results = [
        survival::a_kill_in_the_middle_neither_adds_nor_skips_a_step(&rig).await,
        survival::a_second_operator_takes_over_when_the_leader_dies_or_stops(&rig).await,
        Scenario::run(
            &rig,
            "two-operators-without-leader-election",
            survival::two_operators_without_leader_election_are_reported,
        )
        .await,
        Scenario::run(
            &rig,
            "a-lease-is-deleted-or-stolen",
            survival::a_lease_that_is_deleted_or_stolen_stops_no_release,
        )
        .await,
        Scenario::run(
            &rig,
            "a-canary-moves-to-another-shard",
            survival::a_canary_moves_to_the_operator_of_another_shard,
        )
        .await,
    ];
    rig.end(results.into_iter().filter_map(Result::err).collect())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_overlay_grants_the_rights_that_its_releases_need_and_none_of_another_router() {
    let rig = Rig::idle().await;
    let failed = installs::each_overlay_grants_what_its_releases_need(&rig).await;
    rig.end(failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_install_what_the_overlays_install_and_replace_flaggers() {
    let rig = Rig::bare().await;
    let failed = charts::are_what_the_overlays_are_and_replace_flaggers(&rig).await;
    rig.end(failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_needs_no_watches() {
    let rig = Rig::idle().await;
    let watched = survival::kinds_that_cannot_be_watched_are_read_instead(&rig).await;
    let deleted =
        own_routes::a_canary_goes_although_the_operator_may_not_read_its_route_any_more(&rig).await;
    let failed = [watched, deleted].into_iter().filter_map(Result::err);
    rig.end(failed.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_survives_faults_of_the_control_plane() {
    let rig = Rig::start(&[]).await;
    let test = survival::a_release_survives_faults_of_the_control_plane;
    let result = Scenario::run(&rig, "control-plane", test).await;
    rig.end(result.err().into_iter().collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_flagger_left_is_taken_over() {
    let rig = Rig::idle().await;
    let failed = takeover::each_state_of_flagger_is_taken_over(&rig, true).await;
    rig.end(failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_flagger_left_is_taken_over_with_flaggers_own_kinds_and_rights() {
    let rig = Rig::idle().await;
    rig.with_flaggers_kinds_and_rights().await.unwrap();
    let failed = takeover::each_state_of_flagger_is_taken_over(&rig, false).await;
    rig.end(failed).await;
}
