//! What is measured, one after another, on one control plane.

use std::{path::PathBuf, time::Duration};

use flagger_rs::{api::canary::CanaryPhase as P, snapshot::Kind};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use testbed::{Audit, Bed, bed::ACCOUNT, operator::Operator, process::Usage, wait::until};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Size,
    crowd::{self, INTERVAL, Seen},
    report::Figure,
    servers::Servers,
};

/// The longest that a crowd may take to get anywhere.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How long nothing happens while what rest costs is measured.
const REST: Duration = Duration::from_secs(120);
/// The tick that figures at rest are given for.
const TICK: f64 = 60.0;
/// How long progressing canaries are watched.
const STEPS: Duration = Duration::from_secs(60);

struct Lab {
    bed: Bed,
    client: Client,
    program: PathBuf,
    kubeconfig: PathBuf,
    proxy: String,
    servers: Servers,
    seen: Seen,
    size: Size,
    figures: Vec<Figure>,
}

/// Measures all.
pub async fn all(size: Size) -> Vec<Figure> {
    let bed = Bed::start().await.unwrap();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let (_, kubeconfig) = bed.install(&root.join("kustomize/istio")).await.unwrap();
    bed.plane.stop_controllers().await;
    let (servers, seen) = (Servers::default(), Seen::default());
    let client = bed.client();
    let tasks = [crowd::actor(client.clone()), seen.start(client.clone())];
    let mut lab = Lab {
        program: release_build(&root),
        proxy: servers.start().await,
        client,
        bed,
        kubeconfig,
        servers,
        seen,
        size,
        figures: Vec::new(),
    };
    lab.start_with_a_hundred().await;
    let operator = lab.settle().await;
    operator.terminate().await.unwrap();
    let operator = lab.first_sync().await;
    lab.rest(&operator).await;
    lab.memory(&operator);
    lab.one_release().await;
    lab.new_revisions().await;
    let operator = lab.many_steps(operator).await;
    lab.bad_sample().await;
    lab.churn(&operator).await;
    operator.terminate().await.unwrap();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let Lab { bed, figures, .. } = lab;
    bed.stop().await;
    figures
}

fn release_build(root: &std::path::Path) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = std::process::Command::new(cargo)
        .args(["build", "--release", "--bin", "flagger"])
        .current_dir(root)
        .status();
    assert!(built.unwrap().success());
    let target = std::env::current_exe().unwrap();
    target.ancestors().nth(3).unwrap().join("release/flagger")
}

impl Lab {
    fn figure(
        &mut self,
        what: impl Into<String>,
        flagger: &'static str,
        goal: f64,
        value: f64,
        unit: &'static str,
    ) {
        let what = what.into();
        eprintln!("load: {what}: {value:.3} {unit} (≤ {goal})");
        self.figures.push(Figure {
            what,
            flagger,
            goal,
            value,
            unit,
        });
    }

    /// A new process; how long it took to be ready.
    async fn operator(&self) -> (Operator, Duration) {
        let args = [
            "-mesh-provider=istio",
            "-metrics-server=http://prometheus:9090",
            "-slack-url=http://slack/hook",
            "-slack-channel=general",
            "-event-webhook=http://events/all",
            "-log-level=error",
        ];
        let begun = Instant::now();
        let operator = Operator::start(
            "flagger",
            &self.program,
            &self.kubeconfig,
            &self.proxy,
            &args,
            self.bed.folder(),
        );
        let operator = operator.await.unwrap();
        operator.ready(PATIENCE).await.unwrap();
        (operator, begun.elapsed())
    }

    async fn start_with_a_hundred(&mut self) {
        let first = self.size.canaries.min(100);
        crowd::create(&self.client, 0..first, 0..0).await;
        let (operator, _) = self.operator().await;
        self.until_settled(first).await;
        operator.terminate().await.unwrap();
        let (operator, took) = self.operator().await;
        self.figure(
            format!("start to ready, {first} canaries"),
            "0.4 s, first canary after 12 s",
            1.0,
            took.as_secs_f64(),
            "s",
        );
        operator.terminate().await.unwrap();
    }

    /// All canaries are made and initialized.
    async fn settle(&self) -> Operator {
        let first = self.size.canaries.min(100);
        crowd::create(
            &self.client,
            first..self.size.canaries,
            0..self.size.unrelated,
        )
        .await;
        let (operator, _) = self.operator().await;
        self.until_settled(self.size.canaries).await;
        operator
    }

    async fn until_settled(&self, canaries: usize) {
        let mut told = 0;
        let idle = [P::Initialized, P::Succeeded, P::Failed];
        until(PATIENCE, "all canaries to be settled", async || {
            let now = self.seen.count(&idle);
            if now / 500 != told / 500 {
                eprintln!("load: {now} of {canaries} settled");
                told = now;
            }
            if now >= canaries {
                Ok(())
            } else {
                Err(now.to_string())
            }
        })
        .await
        .unwrap();
        // Their last events, and what drains.
        sleep(Duration::from_secs(15)).await;
    }

    async fn first_sync(&mut self) -> Operator {
        let (operator, took) = self.operator().await;
        let canaries = self.size.canaries;
        self.figure(
            format!("start to ready, {canaries} canaries"),
            "-",
            5.0,
            took.as_secs_f64(),
            "s",
        );
        sleep(Duration::from_secs(20)).await;
        operator
    }

    async fn rest(&mut self, operator: &Operator) {
        let (before, usage) = (self.requests().len(), operator.usage().unwrap());
        sleep(REST).await;
        let requests = self.requests().split_off(before);
        let ticks = self.size.canaries as f64 * REST.as_secs_f64() / TICK;
        self.figure(
            "API requests per canary per tick at rest (T = 60 s)",
            "14",
            0.1,
            requests.len() as f64 / ticks,
            "",
        );
        let writes = requests
            .iter()
            .filter(|line| !is_read(line) && line.resource != "leases")
            .count();
        let hours = self.size.canaries as f64 * REST.as_secs_f64() / 3600.0;
        self.figure(
            "writes per settled canary per hour",
            "0; 60 when Failed",
            0.0,
            writes as f64 / hours,
            "",
        );
        self.figure(
            "CPU per 1,000 ticks at rest",
            "10.2 or 3.1 s",
            0.1,
            processor(&usage, operator).as_secs_f64() * 1000.0 / ticks,
            "s",
        );
    }

    /// What is resident once nothing happened for a while.
    fn memory(&mut self, operator: &Operator) {
        let Size {
            canaries,
            unrelated,
            ..
        } = self.size;
        let name = format!("memory at {canaries} canaries among {unrelated} other Deployments");
        self.resident(operator, name);
        let usage = operator.usage().unwrap();
        self.figure(
            "its peak during the first sync, to steady",
            "-",
            1.5,
            usage.peak_bytes as f64 / usage.resident_bytes as f64,
            "×",
        );
    }

    fn resident(&mut self, operator: &Operator, what: String) {
        let goal = if self.size.canaries <= 1000 {
            25.0
        } else {
            60.0
        };
        let megabytes = operator.usage().unwrap().resident_bytes as f64 / 1e6;
        self.figure(what, "126 MB (no others)", goal, megabytes, "MB");
    }

    async fn one_release(&mut self) {
        let n = 1;
        let before = self.requests().len();
        let [(_, begun)] = crowd::release(&self.client, std::iter::once(n), "2").await[..] else {
            unreachable!()
        };
        until(PATIENCE, "a release", async || {
            let end = self.seen.since(n, begun);
            end.iter()
                .any(|(_, phase, _)| *phase == P::Succeeded)
                .then_some(())
                .ok_or_else(|| format!("{:?}", end.last()))
        })
        .await
        .unwrap();
        sleep(Duration::from_secs(5)).await;
        let requests = self.requests().split_off(before);
        let name = crowd::name(n);
        let own = requests
            .iter()
            .filter(|line| line.name.starts_with(&name))
            .count();
        self.figure(
            "requests for a full 10-step release",
            "299",
            60.0,
            own as f64,
            "",
        );
    }

    async fn new_revisions(&mut self) {
        let count = (self.size.canaries / 10).clamp(1, 200);
        let acknowledged = crowd::release(&self.client, 10..10 + count, "2").await;
        sleep(Duration::from_secs(5)).await;
        let mut took: Vec<f64> = Vec::new();
        for (n, at) in acknowledged {
            let seen = self.seen.since(n, at);
            let begun = seen.iter().find(|(_, phase, _)| *phase == P::Progressing);
            took.push(begun.map_or(f64::INFINITY, |(begun, ..)| {
                begun.duration_since(at).as_secs_f64()
            }));
        }
        took.sort_by(f64::total_cmp);
        self.figure(
            "new revision to Progressing, p50",
            "121 or 34 s",
            1.0,
            quantile(&took, 50),
            "s",
        );
        self.figure(
            "new revision to Progressing, p99",
            "180 or 61 s",
            3.0,
            quantile(&took, 99),
            "s",
        );
        self.until_settled(self.size.canaries).await;
    }

    /// Many releases at once; in the middle of them the process is killed.
    async fn many_steps(&mut self, operator: Operator) -> Operator {
        let first = self.size.canaries - self.size.progressing;
        let which = first..self.size.canaries;
        crowd::release(&self.client, which.clone(), "3").await;
        sleep(Duration::from_secs(INTERVAL + 5)).await;
        let (before, usage, begun) = (
            self.requests().len(),
            operator.usage().unwrap(),
            Instant::now(),
        );
        sleep(STEPS).await;
        let requests = self.requests().split_off(before);
        let processor = processor(&usage, &operator).as_secs_f64();
        let (mut steps, mut late) = (0, Vec::new());
        for n in which.clone() {
            let taken = self.weights_since(n, begun);
            steps += taken.len();
            late.extend(taken.windows(2).map(|two| lateness(two[0], two[1])));
        }
        late.sort_by(f64::total_cmp);
        let of_canaries: Vec<_> = requests
            .iter()
            .filter(|line| line.name.starts_with("app-"))
            .collect();
        let reads = of_canaries.iter().filter(|line| is_read(line)).count();
        let progressing = self.size.progressing;
        self.figure(
            "requests per progressing step",
            "21",
            4.0,
            of_canaries.len() as f64 / steps as f64,
            "",
        );
        self.figure("of these, reads", "-", 0.0, reads as f64 / steps as f64, "");
        self.figure(
            "CPU per 1,000 steps",
            "12.9 or 5.6 s",
            2.0,
            processor * 1000.0 / steps as f64,
            "s",
        );
        self.figure(
            format!("lateness of steps, p99, {progressing} progressing"),
            "6.2 or 2.1 s (200 progressing)",
            100.0,
            quantile(&late, 99) * 1000.0,
            "ms",
        );

        let killed = Instant::now();
        operator.kill().await;
        let (operator, took) = self.operator().await;
        sleep_until(killed + took + Duration::from_secs(INTERVAL + 5)).await;
        // How long after the start the last of them took a step that was tick before.
        let mut until_cadence = took.as_secs_f64();
        for n in which {
            let (earlier, later): (Vec<_>, Vec<_>) = self
                .weights_since(n, begun)
                .into_iter()
                .partition(|at| *at < killed);
            if let (Some(last), Some(next)) = (earlier.last(), later.first()) {
                let tick = *last + Duration::from_secs(INTERVAL);
                if tick < killed + took {
                    until_cadence = until_cadence.max(next.duration_since(killed).as_secs_f64());
                } else {
                    until_cadence = until_cadence.max(took.as_secs_f64() + lateness(*last, *next));
                }
            }
        }
        self.figure(
            format!("kill -9 to all {progressing} on their cadence again"),
            "202 or 92 s (50 progressing)",
            5.0,
            until_cadence,
            "s",
        );
        self.until_settled(self.size.canaries).await;
        operator
    }

    async fn bad_sample(&mut self) {
        let n = 2;
        let [(_, begun)] = crowd::release(&self.client, std::iter::once(n), "4").await[..] else {
            unreachable!()
        };
        until(PATIENCE, "traffic on the canary", async || {
            self.weights_since(n, begun)
                .first()
                .map(drop)
                .ok_or_else(|| "none".to_owned())
        })
        .await
        .unwrap();
        self.servers.turn_bad(&crowd::name(n));
        let (group, version) = Kind::VirtualService.group_version();
        let gvk = GroupVersionKind::gvk(group, version, Kind::VirtualService.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, Kind::VirtualService.plural());
        let routes: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &crowd::namespace(n), &resource);
        let back = until(PATIENCE, "the way back", async || {
            let route = routes
                .get(&crowd::name(n))
                .await
                .map_err(|e| e.to_string())?;
            let weight = route.data.pointer("/spec/http/0/route/0/weight").cloned();
            (weight == Some(100.into()))
                .then(Instant::now)
                .ok_or_else(|| format!("{weight:?}"))
        });
        let back = back.await.unwrap();
        let told = self.servers.told_bad().unwrap();
        self.figure(
            "bad sample to route back at the primary, chats hanging",
            "10 s, not hanging",
            1.0,
            back.duration_since(told).as_secs_f64(),
            "s",
        );
    }

    /// Each second a new version, and changes that are none of the operator's business.
    async fn churn(&mut self, operator: &Operator) {
        if self.size.churn == 0 {
            return;
        }
        self.servers.mark_written();
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        for second in 0..60 * self.size.churn {
            seconds.tick().await;
            let version = format!("churn-{second}");
            let which = second % self.size.canaries;
            crowd::release(&self.client, std::iter::once(which), &version).await;
            let first = 20 * second;
            let unrelated = self.size.unrelated;
            let others = (first..first + 20.min(unrelated)).map(|n| n % unrelated);
            crowd::touch(&self.client, others, &version).await;
            if second % 60 == 0 {
                let resident = operator.usage().unwrap().resident_bytes as f64 / 1e6;
                eprintln!("load: {} minutes of churn: {resident:.1} MB", second / 60);
            }
        }
        self.until_settled(self.size.canaries).await;
        let name = format!("memory after {} minutes of churn", self.size.churn);
        self.resident(operator, name);
    }

    /// When the weight of a canary was raised.
    fn weights_since(&self, n: usize, then: Instant) -> Vec<Instant> {
        let all = self.seen.since(n, then);
        let steps = all
            .iter()
            .filter(|(_, phase, weight)| *phase == P::Progressing && *weight > 0);
        steps.map(|(at, ..)| *at).collect()
    }

    /// What the operator asked of the API server so far.
    fn requests(&self) -> Vec<Audit> {
        let mut lines = self.bed.audit().unwrap();
        lines.retain(|line| line.user == ACCOUNT);
        lines
    }
}

fn is_read(line: &Audit) -> bool {
    matches!(line.verb.as_str(), "get" | "list" | "watch")
}

fn processor(before: &Usage, operator: &Operator) -> Duration {
    operator
        .usage()
        .unwrap()
        .processor
        .saturating_sub(before.processor)
}

/// How much later than an interval after the one step came the next, in seconds.
fn lateness(one: Instant, next: Instant) -> f64 {
    (next.duration_since(one).as_secs_f64() - INTERVAL as f64).max(0.0)
}

/// The value below which so many of a hundred are.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let at = sorted.len() * percent / 100;
    let last = sorted.len().saturating_sub(1);
    sorted.get(at.min(last)).copied().unwrap_or(f64::INFINITY)
}
