//! Drawing: place by place, and at each place depth by depth (section 3.2 of the paper).

use brisk_nn::{KeyValueCache, Tensor, Trace, logits};

use super::projector::Projector;
use super::tower::Tower;
use crate::language_model::{LanguageModel, Place, Rows, Span};
use crate::{Error, Result};

/// Who decides what the model leaves open.
pub trait Chooser {
    /// Chooses a code for each picture by guided logits `[n,V]` of depth `depth` of place `place`.
    ///
    /// # Errors
    /// Logits that cannot be read.
    fn choose(&mut self, place: usize, depth: usize, logits: &Tensor) -> Result<Vec<u32>>;
}

/// The likeliest code everywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Greedy;

impl Chooser for Greedy {
    fn choose(&mut self, _place: usize, _depth: usize, logits: &Tensor) -> Result<Vec<u32>> {
        let rows = logits.to_vec2::<f32>()?;
        Ok(rows.iter().map(|row| logits::likeliest(row)).collect())
    }
}

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Tokens of each picture's prompt, without padding.
    pub prompts: &'a [Vec<u32>],
    /// Tokens that stand for no prompt, one row for each; without them logits are taken as they are.
    pub unconditional: Option<&'a [Vec<u32>]>,
    /// Strength of guidance: logits are `without + g·(with − without)`.
    pub guidance: f64,
    /// Places of each: those of a picture, or of several one after another.
    pub places: usize,
    /// Codes `[n·D]` of the first places, which are taken as they are.
    pub given: &'a [Vec<u32>],
}

/// What came of it.
#[derive(Debug)]
pub struct Drawn {
    /// Codes `[places·D]` of each picture.
    pub codes: Vec<Vec<u32>>,
    /// Sums of their codewords `[n,places,C]`.
    pub sums: Tensor,
}

/// Language model, depth transformer, codebooks, decoder and projector together.
#[derive(Debug)]
pub struct Generator {
    language: LanguageModel,
    tower: Tower,
    projector: Projector,
}

impl Generator {
    /// Of networks that belong together; of the tower depth transformer and decoder are needed.
    ///
    /// # Errors
    /// Widths that do not fit; both are named.
    pub fn new(language: LanguageModel, tower: Tower, projector: Projector) -> Result<Self> {
        let (hidden, widths) = (language.config().hidden_size, projector.widths());
        let head = &tower.config().head;
        for (what, found, expected) in [
            (
                "the depth transformer takes hidden states",
                head.hidden_width,
                hidden,
            ),
            ("the projector gives embeddings", widths.hidden, hidden),
            (
                "the projector takes codewords",
                widths.codeword,
                tower.config().embed_dim,
            ),
        ] {
            if found != expected {
                return Err(Error::Config(format!(
                    "{what} of {found} channels, expected {expected}; the networks do not belong together"
                )));
            }
        }
        Ok(Self {
            language,
            tower,
            projector,
        })
    }

    /// The language model.
    pub fn language(&self) -> &LanguageModel {
        &self.language
    }

    /// The tower.
    pub fn tower(&self) -> &Tower {
        &self.tower
    }

    /// The projector.
    pub fn projector(&self) -> &Projector {
        &self.projector
    }

    /// Draws codes. `place_done` is told of each place and may stop the run by an error. `trace` sees what the
    /// language model, the depth transformer (within `depth`) and the projector show, and `guided` logits.
    ///
    /// # Errors
    /// Prompts without tokens, more positions than the model knows, codes outside the codebook, a non-finite
    /// activation, or what `chooser` and `place_done` report.
    pub fn draw(
        &self,
        request: &Request,
        chooser: &mut dyn Chooser,
        place_done: &mut dyn FnMut(usize) -> Result<()>,
        trace: &mut Trace,
    ) -> Result<Drawn> {
        let count = request.prompts.len();
        let without = request.unconditional.unwrap_or_default();
        if count == 0 || !(without.is_empty() || without.len() == count) {
            return Err(Error::Shape(format!(
                "{count} prompts with {} rows without one; expected as many, or none",
                without.len()
            )));
        }
        let quantizer = self.tower.quantizer();
        let rows: Vec<&Vec<u32>> = request.prompts.iter().chain(without).collect();
        let mut caches = rows
            .iter()
            .map(|row| {
                self.language
                    .cache(row.len() + request.places.saturating_sub(1))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut hidden = self.begin(&rows, &mut caches, trace)?;
        let mut codes: Vec<Vec<u32>> = vec![Vec::new(); count];
        let mut sums = Vec::with_capacity(request.places);
        for place in 0..request.places {
            if let Some(sum) = sums.last() {
                let embedded = self.projector.forward(sum, trace)?;
                // The same for rows with a prompt and without.
                let both = vec![&embedded; rows.len() / count];
                let embedded = Tensor::cat(&both, 0)?;
                let places: Vec<Place> = rows
                    .iter()
                    .map(|row| Place {
                        tokens: 1,
                        start: row.len() + place - 1,
                        pad: 0,
                    })
                    .collect();
                let mut kept: Vec<Option<&mut KeyValueCache>> =
                    caches.iter_mut().map(Some).collect();
                hidden =
                    self.language
                        .hidden_of(&embedded, &places, &mut kept, Rows::All, trace)?;
            }
            let given = request.given.get(place);
            let chosen = match given {
                Some(given) => given.clone(),
                None => self.place(request, place, &hidden, chooser, trace)?,
            };
            sums.push(quantizer.sum(&chosen)?);
            for (codes, chosen) in codes.iter_mut().zip(chosen.chunks(quantizer.depth())) {
                codes.extend(chosen);
            }
            place_done(place)?;
        }
        let sums: Vec<Tensor> = sums
            .iter()
            .map(|sum| sum.unsqueeze(1))
            .collect::<Result<_>>()?;
        Ok(Drawn {
            codes,
            sums: Tensor::cat(&sums, 1)?,
        })
    }

    /// Takes in the prompts; the hidden states `[rows,H]` of their last tokens.
    fn begin(
        &self,
        rows: &[&Vec<u32>],
        caches: &mut [KeyValueCache],
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let spans: Vec<Span> = rows.iter().map(|row| Span::whole(row)).collect();
        let lasts: Vec<(usize, usize)> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| (at, row.len().saturating_sub(1)))
            .collect();
        let mut kept: Vec<Option<&mut KeyValueCache>> = caches.iter_mut().map(Some).collect();
        self.language
            .hidden_traced(&spans, &mut kept, Rows::Some(&lasts), trace)
    }

    /// Codes `[n·D]` of a place by the hidden states `[rows,H]`.
    fn place(
        &self,
        request: &Request,
        place: usize,
        hidden: &Tensor,
        chooser: &mut dyn Chooser,
        trace: &mut Trace,
    ) -> Result<Vec<u32>> {
        let (quantizer, head) = (self.tower.quantizer(), self.tower.depth()?);
        let (count, depths) = (request.prompts.len(), quantizer.depth());
        let copies = hidden.dim(0)? / count;
        let mut codes = vec![0; count * depths];
        let mut cache = head.cache();
        let mut sum: Option<Tensor> = None;
        for depth in 0..depths {
            let input = match &sum {
                None => hidden.clone(),
                Some(sum) => Tensor::cat(&vec![sum; copies], 0)?,
            };
            let logits = head.next(&mut cache, &input, &mut trace.within("depth"))?;
            let guided = guide(&logits, count, request.guidance)?;
            trace.see("guided", &guided);
            let chosen = chooser.choose(place, depth, &guided)?;
            let words = quantizer.codewords(depth, &chosen)?;
            sum = Some(match sum {
                Some(sum) => (sum + words)?,
                None => words,
            });
            for (at, code) in chosen.into_iter().enumerate() {
                codes[at * depths + depth] = code;
            }
        }
        Ok(codes)
    }

    /// Sums of codewords `[n,places,C]` of `n` pictures, or of several one after another, to pictures
    /// `[m,H,W,3]` in 0..1.
    ///
    /// # Errors
    /// No whole number of pictures, or a non-finite activation.
    pub fn pictures(&self, sums: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (count, places, width) = sums.dims3()?;
        let maps = self.tower.maps(&sums.reshape((count * places, width))?)?;
        let pictures = self.tower.decode(&maps, trace)?;
        pictures.affine(0.5, 0.5)?.clamp(0.0, 1.0)
    }
}

/// Guided logits `[n,V]` of those with a prompt and, behind them, those without.
fn guide(logits: &Tensor, count: usize, guidance: f64) -> Result<Tensor> {
    if logits.dim(0)? == count {
        return Ok(logits.clone());
    }
    let with = logits.narrow(0, 0, count)?;
    let without = logits.narrow(0, count, count)?;
    &without + ((with - &without)? * guidance)?
}
