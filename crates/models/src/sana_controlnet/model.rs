//! The forward pass.

use brisk_nn::{Init, Linear, Location, Tensor, Trace, Weights, check_finite};

use super::SanaControlNetConfig;
use crate::sana::{CaptionContext, CaptionEncoder, PatchEmbed, SanaBlock, TimeEmbed};
use crate::{Error, Result};

const STAGE: &str = "controlnet";

/// What the copied blocks start from; it decides the wiring.
#[derive(Debug, Clone, Copy)]
pub enum ControlStart<'a> {
    /// Diffusers' wiring: the embedding of this latent `[B,h,w,C]`.
    Latent(&'a Tensor),
    /// The authors' wiring: the transformer's tokens `[B,N,d]` after its block 0.
    FirstBlock(&'a Tensor),
}

/// SANA's ControlNet.
#[derive(Debug)]
pub struct SanaControlNet {
    config: SanaControlNetConfig,
    patch_embed: PatchEmbed,
    time_embed: TimeEmbed,
    caption: CaptionEncoder,
    input_block: Linear,
    blocks: Vec<SanaBlock>,
    outputs: Vec<Linear>,
}

impl SanaControlNet {
    /// Loads the model.
    ///
    /// # Errors
    /// An invalid configuration, or one report of every tensor that is missing, unexpected or of
    /// another shape.
    pub fn load(config: &SanaControlNetConfig, weights: &Weights) -> Result<Self> {
        config.validate()?;
        let base = &config.transformer;
        let width = base.width();
        // Zero: an untrained ControlNet changes nothing.
        let projection = |weights: Weights| Linear::load(&weights, width, width, true, Init::Zeros);
        let layers = 0..base.num_layers;
        let model = Self {
            config: config.clone(),
            patch_embed: PatchEmbed::load(base, &weights.pp("patch_embed"))?,
            time_embed: TimeEmbed::load(base, &weights.pp("time_embed"))?,
            caption: CaptionEncoder::load(base, weights)?,
            input_block: projection(weights.pp("input_block"))?,
            blocks: layers
                .clone()
                .map(|i| SanaBlock::load(base, &weights.pp("transformer_blocks").pp(i)))
                .collect::<Result<_>>()?,
            outputs: layers
                .map(|i| projection(weights.pp("controlnet_blocks").pp(i)))
                .collect::<Result<_>>()?,
        };
        weights.finish(&[])?;
        Ok(model)
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &SanaControlNetConfig {
        &self.config
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        self.config.parameters()
    }

    /// As [`SanaTransformer::encode_caption`](crate::sana::SanaTransformer::encode_caption), with
    /// the ControlNet's own weights.
    ///
    /// # Errors
    /// As there.
    pub fn encode_caption(&self, text: &Tensor, lengths: &[usize]) -> Result<CaptionContext> {
        self.encode_caption_traced(text, lengths, &mut Trace::none())
    }

    /// As [`Self::encode_caption`]; `trace` sees `caption_projection` and `caption_norm`.
    ///
    /// # Errors
    /// As [`Self::encode_caption`].
    pub fn encode_caption_traced(
        &self,
        text: &Tensor,
        lengths: &[usize],
        trace: &mut Trace,
    ) -> Result<CaptionContext> {
        // A ControlNet computes on the host, also beside a text encoder on a card.
        let text = text.to(&Location::HOST)?;
        self.caption
            .encode(&text, lengths, &self.blocks, STAGE, trace)
    }

    /// The residuals `[B,N,d]`, one a copied block, times `scale`. `control` `[B,h,w,C]` is the
    /// encoded control picture; `timestep`, `guidance` and `caption` are the transformer's (the
    /// caption through [`Self::encode_caption`]).
    ///
    /// # Errors
    /// Shapes that do not match, or a non-finite activation.
    pub fn forward(
        &self,
        start: ControlStart,
        control: &Tensor,
        timestep: &Tensor,
        guidance: Option<&Tensor>,
        caption: &CaptionContext,
        scale: f64,
    ) -> Result<Vec<Tensor>> {
        let trace = &mut Trace::none();
        self.forward_traced(start, control, timestep, guidance, caption, scale, trace)
    }

    /// As [`Self::forward`]; `trace` sees `patch_embed` (diffusers' wiring), `patch_embed.control`,
    /// `time_embed`, `time_embed.embedded`, every `transformer_blocks.{i}` and its parts, and `controlnet_blocks.{i}` (scaled).
    ///
    /// # Errors
    /// As [`Self::forward`].
    #[allow(clippy::too_many_arguments)]
    pub fn forward_traced(
        &self,
        start: ControlStart,
        control: &Tensor,
        timestep: &Tensor,
        guidance: Option<&Tensor>,
        caption: &CaptionContext,
        scale: f64,
        trace: &mut Trace,
    ) -> Result<Vec<Tensor>> {
        let grid = self.patch_embed.grid(control)?;
        let batch = control.dim(0)?;
        let width = self.config.transformer.width();
        caption.check(batch, self.blocks.len())?;
        let start = match start {
            ControlStart::Latent(latent) => {
                let x = self.patch_embed.forward(latent)?;
                trace.see("patch_embed", &x);
                x
            }
            ControlStart::FirstBlock(x) => x.clone(),
        };
        if start.dims() != [batch, grid.0 * grid.1, width] {
            return Err(Error::Shape(format!(
                "the control latent is {:?}, which does not match the latent's tokens {:?}",
                control.dims(),
                start.dims()
            )));
        }
        let (modulation, embedded) = self.time_embed.forward(timestep, guidance, batch)?;
        trace.see("time_embed", &modulation);
        trace.see("time_embed.embedded", &embedded);
        let modulation = modulation.reshape((batch, 6, width))?;
        let control = self.patch_embed.forward(control)?;
        trace.see("patch_embed.control", &control);
        let mut x = (start + self.input_block.forward(&control)?)?;
        let mut residuals = Vec::with_capacity(self.blocks.len());
        for (index, (block, output)) in self.blocks.iter().zip(&self.outputs).enumerate() {
            let modulation = block.modulation(&modulation)?;
            let input = caption.block_input(index, &modulation, grid, None);
            let name = format!("transformer_blocks.{index}");
            x = block.forward(&x, &input, &mut trace.within(&name))?;
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
            let residual = (output.forward(&x)? * scale)?;
            trace.see(&format!("controlnet_blocks.{index}"), &residual);
            residuals.push(residual);
        }
        Ok(residuals)
    }
}
