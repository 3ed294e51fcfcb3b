//! A model that answers questions about pictures as a judge, by its scores for "yes" and "no" (VILA-Judge).

use std::sync::Arc;

use brisk_media::Picture;

use super::{Judge, Judgement};
use crate::error::{Error, Result};
use crate::events::Control;
use crate::options::{Definition, OptionValue, text_keys};
use crate::request::{TextModel, TextRequest};

/// Where a template has the prompt.
pub const PROMPT_PLACE: &str = "{prompt}";

/// What is asked of a picture where nothing else is given.
pub const DEFAULT_TEMPLATE: &str = "You compare pictures by how well they match a text. The text is: {prompt}\n\
    Does this picture show everything that the text asks for, and as it asks for it? Answer yes or no.";

/// The option by which models take the pictures of a question.
const PICTURE: &str = "picture";

/// Asks one question of each picture.
pub struct YesNoJudge {
    model: Box<dyn TextModel>,
    template: String,
    /// What both answers begin with, in tokens; nothing in large vocabularies.
    beginning: Vec<u32>,
    /// The first tokens in which they differ.
    yes: u32,
    no: u32,
}

impl YesNoJudge {
    /// `template` is the question, with [`PROMPT_PLACE`] for the prompt; the picture stands before it.
    ///
    /// # Errors
    /// A model that reads no pictures, gives no scores, or has no single token for an answer; a template without a place
    /// for the prompt.
    pub fn new(model: Box<dyn TextModel>, template: Option<String>) -> Result<Self> {
        let label = model.label().to_owned();
        let refuse = |message: &str| Err(Error::folder(&label, message.to_owned()));
        if !model.scores_next() || picture_option(&*model).is_none() {
            return refuse("it does not answer questions about pictures, so it cannot judge them");
        }
        let Some(tokenizer) = model.tokenizer() else {
            return refuse("it has no tokenizer, which a judge needs");
        };
        let (yes, no) = (
            tokenizer.encode_plain("yes")?,
            tokenizer.encode_plain("no")?,
        );
        let same = yes
            .iter()
            .zip(&no)
            .take_while(|(yes, no)| yes == no)
            .count();
        let (Some(&yes_token), Some(&no_token)) = (yes.get(same), no.get(same)) else {
            return refuse("its tokenizer does not tell yes from no; it cannot judge");
        };
        let template = template.unwrap_or_else(|| DEFAULT_TEMPLATE.to_owned());
        if !template.contains(PROMPT_PLACE) {
            return Err(Error::request(
                "judge-template",
                format!("has no {PROMPT_PLACE}, where the prompt is to stand"),
            ));
        }
        Ok(Self {
            yes: yes_token,
            no: no_token,
            beginning: yes[..same].to_vec(),
            template,
            model,
        })
    }
}

/// The option that takes a question's pictures, where the model has it.
fn picture_option(model: &dyn TextModel) -> Option<&'static Definition> {
    let mut honoured = model.support().honoured();
    let found = honoured.find(|honoured| honoured.option.name == PICTURE);
    found.map(|honoured| honoured.option)
}

impl Judge for YesNoJudge {
    fn name(&self) -> String {
        self.model.label().to_owned()
    }

    fn judge(
        &mut self,
        prompt: &str,
        pictures: &[Picture],
        control: &Control,
    ) -> Result<Vec<Judgement>> {
        let mut judgements = Vec::with_capacity(pictures.len());
        for picture in pictures {
            let question = self.template.replace(PROMPT_PLACE, prompt);
            let mut request = TextRequest::new(question).with(&text_keys::GEN_LENGTH, 1);
            if let Some(option) = picture_option(&*self.model) {
                let picture = vec![Arc::new(picture.clone())];
                request.options.give(option, picture.into_value())?;
            }
            let plan = self.model.plan(&request)?;
            let scores = self.model.next_scores(&plan, &self.beginning, control)?;
            let score = |token: u32| {
                let row = scores.first().and_then(|row| row.get(token as usize));
                row.map_or(f64::NEG_INFINITY, |score| f64::from(*score))
            };
            let (yes, no) = (score(self.yes), score(self.no));
            judgements.push(Judgement {
                yes: yes > no,
                score: yes.max(no),
                said: format!("yes {yes:.3}, no {no:.3}"),
            });
        }
        Ok(judgements)
    }
}
