//! A session that sequences of different requests join and leave.

use super::pipeline::TextPipeline;
use super::session::Session;
use crate::error::{Error, Result};
use crate::events::Control;
use crate::request::{Canvas, GeneratedText, SequenceId, TextPlan, TextSession};

/// The sequences of a [`Session`], each with where its shown part begins and its mask.
pub(super) struct OpenSession<'a> {
    pipeline: &'a TextPipeline,
    session: Session<'a>,
    members: Vec<Member>,
}

struct Member {
    id: SequenceId,
    shown_from: usize,
    mask: u32,
}

impl<'a> OpenSession<'a> {
    pub(super) fn new(pipeline: &'a TextPipeline) -> Self {
        Self {
            pipeline,
            session: Session::new(&pipeline.model),
            members: Vec::new(),
        }
    }

    fn member(&self, sequence: SequenceId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == sequence)
    }
}

impl TextSession for OpenSession<'_> {
    fn admit(&mut self, plan: &TextPlan, prompt: usize) -> Result<SequenceId> {
        let decided = self.pipeline.decided(plan)?;
        let (Some(tokens), Some(&shown_from)) =
            (plan.prompts.get(prompt), plan.shown_from.get(prompt))
        else {
            let count = plan.prompts.len();
            let message = format!("there is no prompt {prompt} among {count}");
            return Err(Error::request("prompt", message));
        };
        let (decoding, rule) = (&decided.decoding, &decided.plan);
        let newcomer = self.pipeline.newcomer(tokens, decoding, rule);
        let id = SequenceId(self.session.admit(newcomer)?);
        self.members.push(Member {
            id,
            shown_from,
            mask: rule.mask,
        });
        Ok(id)
    }

    fn step(&mut self, control: &Control) -> Result<Vec<SequenceId>> {
        let session = &mut self.session;
        let moved = control.drive(|| session.step(control))?;
        Ok(moved.into_iter().map(SequenceId).collect())
    }

    fn canvas(&mut self, sequence: SequenceId) -> Option<Canvas<'_>> {
        let done = self.session.is_done(sequence.0);
        let member = self.member(sequence)?;
        Some(Canvas {
            tokens: self.session.ids(sequence.0)?,
            mask: member.mask,
            start: member.shown_from,
            done,
        })
    }

    fn remove(&mut self, sequence: SequenceId) -> Result<Option<GeneratedText>> {
        let done = self.session.is_done(sequence.0);
        let at = self.members.iter().position(|own| own.id == sequence);
        let member = at.map(|at| self.members.remove(at));
        match (member, self.session.remove(sequence.0)) {
            (Some(member), Some(found)) if done => {
                self.pipeline.text_of(found, member.shown_from).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn len(&self) -> usize {
        self.members.len()
    }
}
