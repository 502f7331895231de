//! The measurements, one after another, on one control plane.

use std::{ops::Range, time::Duration};

use flagger_rs::{api::canary::CanaryPhase as P, snapshot::Kind};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use testbed::{Audit, operator::Operator, process::Usage, wait::until};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Only, Size,
    lab::{Lab, PATIENCE},
    report::Figure,
    workloads::{self, INTERVAL},
};

/// The time over which idle canaries are measured.
const IDLE: Duration = Duration::from_secs(120);
/// The interval, in seconds, for which the figures of idle canaries are given.
const TICK: f64 = 60.0;
/// The time over which progressing canaries are measured.
pub const STEPS: Duration = Duration::from_secs(60);

/// Measures everything.
pub async fn all(size: Size) -> Vec<Figure> {
    let mut lab = Lab::start(size).await;
    if let Some(only) = lab.size.only {
        let operator = lab.initialize_all().await;
        match only {
            Only::Steps => {
                let step = lab.many_steps(&operator).await;
                operator.terminate().await.unwrap();
                lab.compare_with_bare_client(step).await;
            }
            Only::Churn => lab.churn(&operator).await,
        }
        return lab.stop().await;
    }
    lab.start_with_a_hundred().await;
    let operator = lab.initialize_all().await;
    operator.terminate().await.unwrap();
    let operator = lab.first_sync().await;
    lab.idle(&operator).await;
    lab.memory(&operator);
    lab.one_release().await;
    lab.new_revisions().await;
    let step = lab.many_steps(&operator).await;
    let operator = lab.kill(operator).await;
    lab.bad_sample().await;
    lab.churn(&operator).await;
    operator.terminate().await.unwrap();
    lab.compare_with_bare_client(step).await;
    lab.stop().await
}

impl Lab {
    async fn start_with_a_hundred(&mut self) {
        let first = self.size.canaries.min(100);
        workloads::create(&self.client, 0..first, 0..0).await;
        let (operator, _) = self.operator().await;
        self.until_idle(first).await;
        operator.terminate().await.unwrap();
        let (operator, took) = self.operator().await;
        self.add(Figure {
            what: format!("start to ready, {first} canaries"),
            flagger: "0.4 s, first canary after 12 s",
            goal: 1.0,
            value: took.as_secs_f64(),
            unit: "s",
        });
        operator.terminate().await.unwrap();
    }

    /// Creates the other canaries and waits until all are initialized.
    pub async fn initialize_all(&self) -> Operator {
        let first = match self.size.only {
            Some(_) => 0,
            None => self.size.canaries.min(100),
        };
        workloads::create(
            &self.client,
            first..self.size.canaries,
            0..self.size.unrelated,
        )
        .await;
        let (operator, _) = self.operator().await;
        self.until_idle(self.size.canaries).await;
        operator
    }

    async fn first_sync(&mut self) -> Operator {
        let (operator, took) = self.operator().await;
        self.add(Figure {
            what: format!("start to ready, {} canaries", self.size.canaries),
            flagger: "-",
            goal: 5.0,
            value: took.as_secs_f64(),
            unit: "s",
        });
        sleep(Duration::from_secs(20)).await;
        operator
    }

    async fn idle(&mut self, operator: &Operator) {
        let (before, usage) = (self.requests().len(), operator.usage().unwrap());
        sleep(IDLE).await;
        let requests = self.requests().split_off(before);
        let processor = processor(&usage, operator).as_secs_f64();
        let ticks = self.size.canaries as f64 * IDLE.as_secs_f64() / TICK;
        self.add(Figure {
            what: "API requests per canary per tick at rest (T = 60 s)".to_owned(),
            flagger: "14",
            goal: 0.1,
            value: requests.len() as f64 / ticks,
            unit: "",
        });
        let writes = requests
            .iter()
            .filter(|line| !is_read(line) && line.resource != "leases")
            .count();
        let hours = self.size.canaries as f64 * IDLE.as_secs_f64() / 3600.0;
        self.add(Figure {
            what: "writes per idle canary per hour".to_owned(),
            flagger: "0; 60 when Failed",
            goal: 0.0,
            value: writes as f64 / hours,
            unit: "",
        });
        self.add(Figure {
            what: "CPU per 1,000 ticks at rest".to_owned(),
            flagger: "10.2 or 3.1 s",
            goal: 0.1,
            value: processor * 1000.0 / ticks,
            unit: "s",
        });
    }

    /// Measures the resident memory of idle canaries.
    fn memory(&mut self, operator: &Operator) {
        let Size {
            canaries,
            unrelated,
            ..
        } = self.size.clone();
        let what = format!("memory at {canaries} canaries among {unrelated} other Deployments");
        self.resident(operator, what);
        let usage = operator.usage().unwrap();
        self.add(Figure {
            what: "its peak during the first sync, to steady".to_owned(),
            flagger: "-",
            goal: 1.5,
            value: usage.peak_bytes as f64 / usage.resident_bytes as f64,
            unit: "×",
        });
    }

    fn resident(&mut self, operator: &Operator, what: String) {
        let goal = if self.size.canaries <= 1000 {
            25.0
        } else {
            60.0
        };
        let megabytes = operator.usage().unwrap().resident_bytes as f64 / 1e6;
        self.add(Figure {
            what,
            flagger: "126 MB (no others)",
            goal,
            value: megabytes,
            unit: "MB",
        });
    }

    async fn one_release(&mut self) {
        let n = 1;
        let before = self.requests().len();
        let [(_, begun)] = workloads::release(&self.client, std::iter::once(n), "2").await[..]
        else {
            unreachable!()
        };
        until(PATIENCE, "a release", async || {
            let changes = self.history.since(n, begun);
            changes
                .iter()
                .any(|(_, phase, _)| *phase == P::Succeeded)
                .then_some(())
                .ok_or_else(|| format!("{:?}", changes.last()))
        })
        .await
        .unwrap();
        sleep(Duration::from_secs(5)).await;
        let requests = self.requests().split_off(before);
        let name = workloads::name(n);
        let own = requests
            .iter()
            .filter(|line| line.name.starts_with(&name))
            .count();
        self.add(Figure {
            what: "requests for a full 10-step release".to_owned(),
            flagger: "299",
            goal: 60.0,
            value: own as f64,
            unit: "",
        });
    }

    async fn new_revisions(&mut self) {
        // A tenth of a thousand canaries, and 500 of 20,000.
        let most = (self.size.canaries / 40).max(200);
        let count = (self.size.canaries / 10).clamp(1, most);
        let acknowledged = workloads::release(&self.client, 10..10 + count, "2").await;
        sleep(Duration::from_secs(5)).await;
        let mut took: Vec<f64> = Vec::new();
        for (n, at) in acknowledged {
            let changes = self.history.since(n, at);
            let begun = changes
                .iter()
                .find(|(_, phase, _)| *phase == P::Progressing);
            took.push(begun.map_or(f64::INFINITY, |(begun, ..)| {
                begun.duration_since(at).as_secs_f64()
            }));
        }
        took.sort_by(f64::total_cmp);
        for (percent, flagger, goal) in [(50, "121 or 34 s", 1.0), (99, "180 or 61 s", 3.0)] {
            self.add(Figure {
                what: format!("new revision to Progressing, p{percent}"),
                flagger,
                goal,
                value: quantile(&took, percent),
                unit: "s",
            });
        }
        self.until_idle(self.size.canaries).await;
    }

    /// The canaries that progress at the same time.
    pub fn progressing(&self) -> Range<usize> {
        self.size.canaries - self.size.progressing..self.size.canaries
    }

    /// Measures many simultaneous releases. They are still under way when this returns. Returns the processor time of 1,000 steps, in seconds.
    async fn many_steps(&mut self, operator: &Operator) -> f64 {
        workloads::release(&self.client, self.progressing(), "3").await;
        sleep(Duration::from_secs(INTERVAL + 5)).await;
        let (before, usage, begun) = (
            self.requests().len(),
            operator.usage().unwrap(),
            Instant::now(),
        );
        sleep(STEPS).await;
        let requests = self.requests().split_off(before);
        let processor = processor(&usage, operator).as_secs_f64();
        let (mut steps, mut late) = (0, Vec::new());
        for n in self.progressing() {
            let taken = self.weights_since(n, begun);
            steps += taken.len();
            late.extend(taken.windows(2).map(|two| lateness(two[0], two[1])));
        }
        late.sort_by(f64::total_cmp);
        let of_canaries = requests.iter().filter(|line| line.name.starts_with("app-"));
        let reads = of_canaries.clone().filter(|line| is_read(line)).count();
        self.add(Figure {
            what: "requests per progressing step".to_owned(),
            flagger: "21",
            goal: 4.0,
            value: of_canaries.count() as f64 / steps as f64,
            unit: "",
        });
        self.add(Figure {
            what: "of these, reads".to_owned(),
            flagger: "-",
            goal: 0.0,
            value: reads as f64 / steps as f64,
            unit: "",
        });
        let step = processor * 1000.0 / steps as f64;
        self.add(Figure {
            what: "CPU per 1,000 steps".to_owned(),
            flagger: "12.9 or 5.6 s",
            goal: if self.size.canaries <= 1000 { 1.0 } else { 1.2 },
            value: step,
            unit: "s",
        });
        self.add(Figure {
            what: format!(
                "lateness of steps, p99, {} progressing",
                self.size.progressing
            ),
            flagger: "6.2 or 2.1 s (200 progressing)",
            goal: 100.0,
            value: quantile(&late, 99) * 1000.0,
            unit: "ms",
        });
        step
    }

    /// Compares the processor time of 1,000 steps with that of a client that only sends the same requests and reads the same watches.
    async fn compare_with_bare_client(&mut self, step: f64) {
        let bare = self.bare();
        sleep(Duration::from_secs(INTERVAL + 5)).await;
        let (before, usage) = (self.requests().len(), bare.usage().unwrap());
        sleep(STEPS).await;
        let processor = bare.usage().unwrap().processor;
        let processor = processor.saturating_sub(usage.processor);
        let requests = self.requests().split_off(before);
        let is_step = |line: &&Audit| line.resource == "virtualservices" && line.verb == "update";
        let limit =
            processor.as_secs_f64() * 1000.0 / requests.iter().filter(is_step).count() as f64;
        bare.kill().await;
        self.add(Figure {
            what: format!("the same, to a client that only sends the requests ({limit:.2} s)"),
            flagger: "-",
            goal: 2.0,
            value: step / limit,
            unit: "×",
        });
    }

    /// Kills the operator in the middle of many releases. Measures the time until the last of them takes the step that it missed.
    async fn kill(&mut self, operator: Operator) -> Operator {
        let killed = Instant::now();
        operator.kill().await;
        let (operator, took) = self.operator().await;
        sleep_until(killed + took + Duration::from_secs(INTERVAL + 5)).await;
        let mut until_cadence = took.as_secs_f64();
        for n in self.progressing() {
            // Older steps than those of the interval before the kill do not matter here.
            let since = killed
                .checked_sub(Duration::from_secs(2 * INTERVAL))
                .unwrap_or(killed);
            let (earlier, later): (Vec<_>, Vec<_>) = self
                .weights_since(n, since)
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
        self.add(Figure {
            what: format!(
                "kill -9 to all {} on their cadence again",
                self.size.progressing
            ),
            flagger: "202 or 92 s (50 progressing)",
            goal: 5.0,
            value: until_cadence,
            unit: "s",
        });
        self.until_idle(self.size.canaries).await;
        operator
    }

    async fn bad_sample(&mut self) {
        let n = 2;
        let [(_, begun)] = workloads::release(&self.client, std::iter::once(n), "4").await[..]
        else {
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
        self.servers.turn_bad(&workloads::name(n));
        let (group, version) = Kind::VirtualService.group_version();
        let gvk = GroupVersionKind::gvk(group, version, Kind::VirtualService.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, Kind::VirtualService.plural());
        let routes: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &workloads::namespace(n), &resource);
        let back = until(
            PATIENCE,
            "all traffic to be back at the primary",
            async || {
                let route = routes
                    .get(&workloads::name(n))
                    .await
                    .map_err(|e| e.to_string())?;
                let weight = route.data.pointer("/spec/http/0/route/0/weight").cloned();
                (weight == Some(100.into()))
                    .then(Instant::now)
                    .ok_or_else(|| format!("{weight:?}"))
            },
        );
        let back = back.await.unwrap();
        let first_bad = self.servers.first_bad_answer().unwrap();
        self.add(Figure {
            what: "bad sample to route back at the primary, chats hanging".to_owned(),
            flagger: "10 s, not hanging",
            goal: 1.0,
            value: back.duration_since(first_bad).as_secs_f64(),
            unit: "s",
        });
    }

    /// Sets a new version of one target and changes twenty unrelated Deployments in each second.
    async fn churn(&mut self, operator: &Operator) {
        if self.size.churn == 0 {
            return;
        }
        self.servers.turn_good();
        if self.size.chats_hang {
            self.servers.hang_chats();
        }
        let mut after_ten_minutes = None;
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        for second in 0..60 * self.size.churn {
            seconds.tick().await;
            let version = format!("churn-{second}");
            let which = second % self.size.canaries;
            workloads::release(&self.client, std::iter::once(which), &version).await;
            let first = 20 * second;
            let unrelated = self.size.unrelated;
            let others = (first..first + 20.min(unrelated)).map(|n| n % unrelated);
            workloads::touch(&self.client, others, &version).await;
            if second % 60 == 0 {
                let resident = operator.usage().unwrap().resident_bytes as f64 / 1e6;
                eprintln!("load: {} minutes of churn: {resident:.1} MB", second / 60);
                if second == 600 {
                    after_ten_minutes = Some(resident);
                }
            }
        }
        if let Some(before) = after_ten_minutes {
            self.add(Figure {
                what: format!("memory after {} minutes, to minute 10", self.size.churn),
                flagger: "-",
                goal: 1.05,
                value: operator.usage().unwrap().resident_bytes as f64 / 1e6 / before,
                unit: "×",
            });
        }
        self.until_idle(self.size.canaries).await;
        let what = format!("memory after {} minutes of churn", self.size.churn);
        self.resident(operator, what);
    }
}

fn is_read(line: &Audit) -> bool {
    matches!(line.verb.as_str(), "get" | "list" | "watch")
}

/// The processor time that the operator has used since `before`.
fn processor(before: &Usage, operator: &Operator) -> Duration {
    operator
        .usage()
        .unwrap()
        .processor
        .saturating_sub(before.processor)
}

/// The seconds between a step and one interval after the step before it; 0 if it was not late.
pub fn lateness(step: Instant, next: Instant) -> f64 {
    (next.duration_since(step).as_secs_f64() - INTERVAL as f64).max(0.0)
}

/// The value at this percentage of a sorted list; infinite if the list is empty.
pub fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let at = sorted.len() * percent / 100;
    let last = sorted.len().saturating_sub(1);
    sorted.get(at.min(last)).copied().unwrap_or(f64::INFINITY)
}
