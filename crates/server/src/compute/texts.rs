//! Texts: sequences of all jobs to a model share forward passes, and newcomers join at the next one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use brisk::{Control, Event, SequenceId, TextModel, TextSession, Work};

use super::{Clock, Compute, panicked};
use crate::ask::{Ask, TextAsk};
use crate::error::{ApiError, Result};
use crate::job::{Canvas, Job, Status};
use crate::outcome::{Outcome, Written};
use crate::queue::Lane;
use crate::residents::{Lent, Model, Room};
use crate::served::Residence;

/// Most sequences that share a pass.
const MOST: usize = 16;
/// The stage's name.
const STAGE: &str = "text";

impl Compute {
    /// Writes the texts of a job, and of those that join it.
    pub(super) fn write(&self, job: Arc<Job>) {
        let Ask::Texts(ask) = &job.ask else {
            return job.fail(Status::Failed, None);
        };
        let weights = ask.model.weight_bytes(job.ask.gives());
        let Some(mut lent) = self.lend(&job, weights.saturating_add(ask.memory)) else {
            return;
        };
        job.begin();
        let clock = Clock::start();
        let opening = self.control(Control::silent().with_cancel(job.halt_flag()));
        let opened = catch_unwind(AssertUnwindSafe(|| lent.open(&opening).map(drop)));
        match opened {
            Ok(Ok(())) => {}
            Ok(Err(_)) if job.is_cancelled() => job.fail(Status::Cancelled, None),
            Ok(Err(error)) => job.fail(Status::Failed, Some(error)),
            Err(panic) => job.fail(Status::Failed, Some(panicked(&*panic))),
        }
        if job.state().status().is_final() {
            return self.left(&job, clock.seconds());
        }
        let planned = !ask.plans.is_empty();
        if planned && lent.text().is_some_and(|model| model.session().is_some()) {
            return self.write_together(job, lent);
        }
        self.with_lent(&job, lent, |lent| match lent.open(&opening)? {
            Model::Text(model) => self.write_alone(&job, ask, &**model),
            Model::Image(_) | Model::Masks(_) | Model::Video(_) => {
                Err(ApiError::internal("the model writes nothing"))
            }
        });
        self.left(&job, clock.seconds());
    }

    fn write_together(&self, first: Arc<Job>, mut lent: Lent) {
        let room = match &first.ask {
            Ask::Texts(ask) => lent.split(ask.memory),
            Ask::Images(_) | Ask::Masks(_) | Ask::Clips(_) => lent.split(0),
        };
        let lent = lent;
        let mut jobs = vec![Member::new(first, room)];
        let worked = catch_unwind(AssertUnwindSafe(|| {
            let Some(model) = lent.text() else {
                return Err(ApiError::internal("the model writes nothing"));
            };
            let Some(session) = model.session() else {
                return Err(ApiError::internal("the model has no sessions"));
            };
            let mut together = Together {
                compute: self,
                lent: &lent,
                model,
                session,
                halt: Arc::default(),
            };
            // One turn for all passes, as their time is one account.
            let turn = self.control(Control::silent());
            let passes = turn.drive(|| Ok::<_, brisk::Error>(together.run(&mut jobs)));
            passes.unwrap_or_else(|error| Err(ApiError::of_library(&error)))
        }));
        let (error, whole) = match worked {
            Ok(Ok(())) => (None, true),
            Ok(Err(error)) => (Some(error), true),
            Err(panic) => (Some(panicked(&*panic)), false),
        };
        // Those that are left share the pass that failed.
        for job in jobs {
            job.job.fail(Status::Failed, error.clone());
            self.left(&job.job, job.seconds);
        }
        match whole {
            true => drop(lent),
            false => lent.discard(),
        }
    }
}

/// A job that takes part.
struct Member {
    job: Arc<Job>,
    /// Number of the text that joins next.
    next: usize,
    /// Those that take part, with their sequences.
    running: Vec<(usize, SequenceId)>,
    written: Vec<Option<Written>>,
    seconds: f64,
    _room: Room,
}

impl Member {
    fn new(job: Arc<Job>, room: Room) -> Self {
        Self {
            next: 0,
            running: Vec::new(),
            written: vec![None; job.ask.count()],
            seconds: 0.0,
            _room: room,
            job,
        }
    }

    /// Its texts that are not written.
    fn left(&self) -> usize {
        self.written.iter().filter(|text| text.is_none()).count()
    }
}

struct Together<'a> {
    compute: &'a Compute,
    lent: &'a Lent,
    model: &'a dyn TextModel,
    session: Box<dyn TextSession + 'a>,
    /// Ends a pass: one of its jobs is to stop.
    halt: Arc<AtomicBool>,
}

impl Together<'_> {
    fn run(&mut self, members: &mut Vec<Member>) -> Result<()> {
        let control = Control::silent().with_cancel(Arc::clone(&self.halt));
        let control = self.compute.control(control);
        members.iter().for_each(|member| self.begin(&member.job));
        let mut tidied = Instant::now();
        loop {
            self.compute.tidy(&mut tidied);
            self.halt.store(false, Ordering::SeqCst);
            self.let_go(members)?;
            self.newcomers(members);
            self.admit(members)?;
            if members.is_empty() {
                return Ok(());
            }
            let clock = Clock::start();
            let moved = match self.session.step(&control) {
                Ok(moved) => moved,
                // Somebody goes; the others make the pass again.
                Err(brisk::Error::Cancelled) => Vec::new(),
                Err(error) => return Err(ApiError::of_library(&error)),
            };
            let seconds = clock.seconds();
            let taking_part: usize = members.iter().map(|member| member.running.len()).sum();
            for member in members.iter_mut() {
                member.seconds += seconds * member.running.len() as f64 / taking_part.max(1) as f64;
            }
            if !moved.is_empty() {
                self.compute.metrics.passed(moved.len());
            }
            for member in members.iter_mut() {
                self.look(member, &moved)?;
            }
            self.finish(members);
        }
    }

    /// Tells a job that it takes part.
    fn begin(&self, job: &Arc<Job>) {
        let Ask::Texts(ask) = &job.ask else { return };
        let stage = Event::Stage {
            name: STAGE,
            work: Work::Run,
            total: 0,
        };
        job.note(stage, 0);
        for warning in ask.plans.iter().flat_map(|plan| &plan.warnings) {
            job.note(Event::Warning(warning.clone()), 0);
        }
        ask.model.set_residence(Residence::Loaded);
        job.halts(&self.halt);
    }

    /// Lets jobs go that are to stop.
    fn let_go(&mut self, members: &mut Vec<Member>) -> Result<()> {
        let (gone, stay) = std::mem::take(members)
            .into_iter()
            .partition(|member| member.job.is_cancelled());
        *members = stay;
        for member in gone {
            for (_, sequence) in &member.running {
                let removed = self.session.remove(*sequence);
                removed.map_err(|error| ApiError::of_library(&error))?;
            }
            member.job.fail(Status::Cancelled, None);
            self.compute.left(&member.job, member.seconds);
        }
        Ok(())
    }

    /// Takes jobs to the same model in while there is room, unless somebody waits for memory.
    fn newcomers(&self, members: &mut Vec<Member>) {
        let Some(model) = members
            .first()
            .map(|member| Arc::clone(member.job.ask.model()))
        else {
            return;
        };
        while members.iter().map(Member::left).sum::<usize>() < MOST {
            let fits = |job: &Job| match &job.ask {
                // What shows pictures is planned for by itself.
                Ask::Texts(ask) if ask.plans.is_empty() => None,
                Ask::Texts(ask) => self.lent.room(ask.memory),
                Ask::Images(_) | Ask::Masks(_) | Ask::Clips(_) => None,
            };
            let next = self.compute.queue.next_of(Lane::Texts, &model.id, fits);
            let Some((job, room)) = next else { return };
            job.begin();
            self.begin(&job);
            members.push(Member::new(job, room));
        }
    }

    /// Lets waiting texts of members take part.
    fn admit(&mut self, members: &mut [Member]) -> Result<()> {
        for member in members {
            let Ask::Texts(ask) = &member.job.ask else {
                continue;
            };
            while member.next < ask.count() && self.session.len() < MOST {
                let made = member.next;
                let (plan, prompt) = (made / ask.answers.len(), made % ask.answers.len());
                let admitted = self.session.admit(&ask.plans[plan], prompt);
                let sequence = admitted.map_err(|error| ApiError::of_library(&error))?;
                member.running.push((made, sequence));
                member.next += 1;
            }
        }
        Ok(())
    }

    /// Looks at the texts of a job that moved.
    fn look(&mut self, member: &mut Member, moved: &[SequenceId]) -> Result<()> {
        let job = Arc::clone(&member.job);
        let Ask::Texts(ask) = &job.ask else {
            return Ok(());
        };
        let mut ended = Vec::new();
        for &(made, sequence) in &member.running {
            let Some(canvas) = self.session.canvas(sequence) else {
                continue;
            };
            let done = canvas.done;
            if ask.is_watched() && moved.contains(&sequence) {
                let event = Event::Canvas {
                    sequence: made,
                    tokens: canvas.tokens.to_vec(),
                    mask: canvas.mask,
                    start: canvas.start,
                };
                job.note(event, 0);
            }
            let stopped = match (ask.stops() && !done, self.model.tokenizer()) {
                (true, Some(tokenizer)) => {
                    let tokens = canvas.tokens.get(canvas.start..).unwrap_or_default();
                    let shown = ask
                        .answer(made)
                        .shown(tokens, canvas.mask, false, tokenizer);
                    shown.ended
                }
                _ => false,
            };
            if done || stopped {
                ended.push((made, sequence));
            }
        }
        for (made, sequence) in ended {
            member.running.retain(|(_, running)| *running != sequence);
            let plan = &ask.plans[made / ask.answers.len()];
            let start = plan.shown_from[made % ask.answers.len()];
            let seen = job.state().canvases.get(made).cloned();
            let removed = self.session.remove(sequence);
            let text = removed.map_err(|error| ApiError::of_library(&error))?;
            member.written[made] = match (text, seen) {
                (Some(text), _) => {
                    let mut tokens = text.tokens;
                    tokens.drain(..start.min(tokens.len()));
                    let canvas = Canvas {
                        passes: text.forward_passes,
                        mask: u32::MAX,
                        tokens,
                    };
                    Some(written(ask, made, &canvas, u32::MAX, self.model))
                }
                (None, Some(canvas)) => Some(written(ask, made, &canvas, canvas.mask, self.model)),
                (None, None) => return Err(ApiError::internal("a text was lost")),
            };
        }
        Ok(())
    }

    /// Ends jobs of which every text is written.
    fn finish(&self, members: &mut Vec<Member>) {
        let (done, stay) = std::mem::take(members)
            .into_iter()
            .partition(|member: &Member| member.written.iter().all(Option::is_some));
        *members = stay;
        for member in done {
            let texts: Vec<Written> = member.written.into_iter().flatten().collect();
            self.compute.metrics.wrote(&texts);
            self.compute
                .measured(&member.job, [(STAGE, member.seconds)]);
            member.job.finish(Outcome::Texts(texts));
            self.compute.left(&member.job, member.seconds);
        }
    }
}

/// A text as the reply shows it.
pub(super) fn written(
    ask: &TextAsk,
    made: usize,
    canvas: &Canvas,
    mask: u32,
    model: &dyn TextModel,
) -> Written {
    let shown = match model.tokenizer() {
        Some(tokenizer) => ask
            .answer(made)
            .shown(&canvas.tokens, mask, true, tokenizer),
        None => Default::default(),
    };
    Written {
        text: shown.text,
        tokens: shown.tokens,
        passes: canvas.passes,
        ended: shown.ended,
    }
}
