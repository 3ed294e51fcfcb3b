//! The transformer: embeddings, blocks, output.

use std::ops::Range;

use brisk_nn::{Init, Linear, Location, Tensor, Trace, Weights, check_finite, from_patches, ops};

use super::block::SanaBlock;
use super::caption::{CaptionContext, CaptionEncoder};
use super::config::SanaConfig;
use super::embed::{PatchEmbed, TimeEmbed};
use crate::{Error, Result};

/// Epsilon of the LayerNorm before the output; `norm_eps` does not apply to it.
const OUTPUT_NORM_EPS: f64 = 1e-6;

const STAGE: &str = "transformer";

/// Where a ControlNet's residuals enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ControlWiring {
    /// As diffusers: residual j is added to the output of block j+1; the copied blocks start from
    /// the latent's embedding.
    #[default]
    Diffusers,
    /// As the authors trained it: residual j is added to the input of block j+1; the copied blocks
    /// start from the output of block 0.
    Native,
}

/// Perturbed-attention guidance: what to perturb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Perturbed {
    /// Indices of the blocks whose self-attention becomes identity.
    pub layers: Vec<usize>,
    /// The pictures of the batch this applies to.
    pub rows: Range<usize>,
}

/// What some pipelines add to a forward pass.
#[derive(Debug, Clone, Default)]
pub struct ForwardExtras<'a> {
    /// ControlNet residuals, `[B,N,d]` each, at most one fewer than the model has blocks.
    pub residuals: &'a [Tensor],
    /// Where they enter.
    pub residual_wiring: ControlWiring,
    /// Output of [`SanaTransformer::first_block`] for the same inputs, to save computing it again.
    pub after_first_block: Option<&'a Tensor>,
    /// Perturbed-attention guidance.
    pub perturbed: Option<Perturbed>,
}

/// SANA's diffusion transformer.
#[derive(Debug)]
pub struct SanaTransformer {
    config: SanaConfig,
    patch_embed: PatchEmbed,
    time_embed: TimeEmbed,
    caption: CaptionEncoder,
    blocks: Vec<SanaBlock>,
    /// The tables of all blocks `[blocks,1,6,d]`, where they stay as they are.
    tables: Option<Tensor>,
    scale_shift_table: Tensor,
    proj_out: Linear,
    /// Where it computes; inputs come there, and results go back.
    location: Location,
}

impl SanaTransformer {
    /// Loads the model.
    ///
    /// # Errors
    /// An invalid configuration, or one report of every tensor that is missing, unexpected or of
    /// another shape.
    pub fn load(config: &SanaConfig, weights: &Weights) -> Result<Self> {
        config.validate()?;
        let width = config.width();
        let blocks = (0..config.num_layers)
            .map(|index| SanaBlock::load(config, &weights.pp("transformer_blocks").pp(index)))
            .collect::<Result<Vec<_>>>()?;
        let tables: Vec<&Tensor> = blocks.iter().map(SanaBlock::table).collect();
        let tables = match tables.iter().any(|table| table.track_op()) {
            true => None,
            false => Some(Tensor::cat(&tables, 0)?.reshape((blocks.len(), 1, 6, width))?),
        };
        let outputs = config.patch_size * config.patch_size * config.output_channels();
        let table_init = Init::Normal(1.0 / (width as f32).sqrt());
        let model = Self {
            config: config.clone(),
            patch_embed: PatchEmbed::load(config, &weights.pp("patch_embed"))?,
            time_embed: TimeEmbed::load(config, &weights.pp("time_embed"))?,
            caption: CaptionEncoder::load(config, weights)?,
            blocks,
            tables,
            scale_shift_table: weights.get("scale_shift_table", &[2, width], table_init)?,
            proj_out: Linear::load(
                &weights.pp("proj_out"),
                width,
                outputs,
                true,
                Init::XavierUniform,
            )?,
            location: weights.location().clone(),
        };
        weights.finish(&[])?;
        Ok(model)
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &SanaConfig {
        &self.config
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        self.config.parameters()
    }

    /// Floating-point operations of one evaluation; see [`SanaConfig::flops`].
    pub fn flops(&self, batch: usize, height: usize, width: usize, text_tokens: usize) -> u64 {
        self.config.flops(batch, height, width, text_tokens, true)
    }

    /// Projects text embeddings `[B,L,caption_channels]`, of which each picture's first
    /// `lengths[b]` rows are valid, and computes every block's keys and values from them. Nothing
    /// here depends on the timestep: do it once per prompt.
    ///
    /// # Errors
    /// Shapes that do not match, a caption without a valid row, or a non-finite activation.
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
        let text = text.to(&self.location)?;
        self.caption
            .encode(&text, lengths, &self.blocks, STAGE, trace)
    }

    /// Predicts from `latent` `[B,h,w,C]` at `timestep` `[B]`, with `guidance` `[B]` exactly where
    /// the model has a guidance embedding (already times `guidance_embeds_scale`), giving
    /// `[B,h,w,Cout]`.
    ///
    /// # Errors
    /// Shapes that do not match each other or the configuration, or a non-finite activation.
    pub fn forward(
        &self,
        latent: &Tensor,
        timestep: &Tensor,
        guidance: Option<&Tensor>,
        caption: &CaptionContext,
        extras: &ForwardExtras,
    ) -> Result<Tensor> {
        let trace = &mut Trace::none();
        self.forward_traced(latent, timestep, guidance, caption, extras, trace)
    }

    /// As [`Self::forward`]; `trace` sees `patch_embed`, `time_embed` (modulation `[B,6d]`),
    /// `time_embed.embedded` `[B,d]`, per block `transformer_blocks.{i}` (before residuals) and
    /// its parts, `norm_out` and `proj_out`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_traced(
        &self,
        latent: &Tensor,
        timestep: &Tensor,
        guidance: Option<&Tensor>,
        caption: &CaptionContext,
        extras: &ForwardExtras,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let grid = self.patch_embed.grid(latent)?;
        let batch = latent.dim(0)?;
        caption.check(batch, self.blocks.len())?;
        self.check_extras(batch, grid, extras)?;
        let (modulation, embedded) = self.time_embed.forward(timestep, guidance, batch)?;
        trace.see("time_embed", &modulation);
        trace.see("time_embed.embedded", &embedded);
        let modulation = modulation.reshape((batch, 6, self.config.width()))?;

        let (mut x, start) = match extras.after_first_block {
            Some(x) => (x.to(&self.location)?, 1),
            None => {
                let x = self.patch_embed.forward(&latent.to(&self.location)?)?;
                trace.see("patch_embed", &x);
                (x, 0)
            }
        };
        let native = extras.residual_wiring == ControlWiring::Native;
        let modulations = self.modulations(&modulation)?;
        for (index, block) in self.blocks.iter().enumerate().skip(start) {
            let residual = index.checked_sub(1).and_then(|i| extras.residuals.get(i));
            if let Some(residual) = residual.filter(|_| native) {
                x = (&x + residual.beside(&x)?)?;
            }
            let perturbed = extras
                .perturbed
                .as_ref()
                .filter(|p| p.layers.contains(&index))
                .map(|p| p.rows.clone());
            let modulation = match &modulations {
                Some(all) => all.narrow(0, index, 1)?.squeeze(0)?,
                None => block.modulation(&modulation)?,
            };
            let input = caption.block_input(index, &modulation, grid, perturbed);
            let name = format!("transformer_blocks.{index}");
            x = block.forward(&x, &input, &mut trace.within(&name))?;
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
            if let Some(residual) = residual.filter(|_| !native) {
                x = (&x + residual.beside(&x)?)?;
            }
        }
        self.output(&x, &embedded, grid, trace)?.beside(latent)
    }

    /// The tokens `[B,N,d]` after block 0: what the copied blocks of a ControlNet in
    /// [`ControlWiring::Native`] start from. Pass it on in [`ForwardExtras::after_first_block`].
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn first_block(
        &self,
        latent: &Tensor,
        timestep: &Tensor,
        guidance: Option<&Tensor>,
        caption: &CaptionContext,
        extras: &ForwardExtras,
    ) -> Result<Tensor> {
        let grid = self.patch_embed.grid(latent)?;
        let batch = latent.dim(0)?;
        caption.check(batch, self.blocks.len())?;
        self.check_extras(batch, grid, extras)?;
        let (modulation, _) = self.time_embed.forward(timestep, guidance, batch)?;
        let modulation = modulation.reshape((batch, 6, self.config.width()))?;
        let perturbed = extras
            .perturbed
            .as_ref()
            .filter(|p| p.layers.contains(&0))
            .map(|p| p.rows.clone());
        let modulation = self.blocks[0].modulation(&modulation)?;
        let input = caption.block_input(0, &modulation, grid, perturbed);
        let x = self.patch_embed.forward(&latent.to(&self.location)?)?;
        let x = self.blocks[0].forward(&x, &input, &mut Trace::none())?;
        check_finite(&x, STAGE, "transformer_blocks.0")?;
        x.beside(latent)
    }

    /// Time modulation `[B,6,d]` plus the table of every block, `[blocks,B,6,d]`: one pass instead of one a block.
    fn modulations(&self, time: &Tensor) -> Result<Option<Tensor>> {
        let Some(tables) = &self.tables else {
            return Ok(None);
        };
        Ok(Some(tables.broadcast_add(&time.unsqueeze(0)?)?))
    }

    /// Final norm, projection and unpatchify.
    fn output(
        &self,
        x: &Tensor,
        embedded: &Tensor,
        (rows, columns): (usize, usize),
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let row = |index: usize| -> Result<Tensor> {
            let table = self.scale_shift_table.narrow(0, index, 1)?;
            embedded.broadcast_add(&table)
        };
        let x = ops::layer_norm_modulate(x, &row(0)?, &row(1)?, OUTPUT_NORM_EPS)?;
        trace.see("norm_out", &x);
        let x = self.proj_out.forward(&x)?;
        trace.see("proj_out", &x);
        check_finite(&x, STAGE, "proj_out")?;
        from_patches(&x, (rows, columns), self.config.patch_size)
    }

    fn check_extras(
        &self,
        batch: usize,
        (rows, columns): (usize, usize),
        extras: &ForwardExtras,
    ) -> Result<()> {
        let fail = |message: String| Err(Error::Shape(message));
        let blocks = self.blocks.len();
        if extras.residuals.len() >= blocks {
            return fail(format!(
                "{} ControlNet residuals for a transformer of {blocks} blocks; at most {}",
                extras.residuals.len(),
                blocks - 1
            ));
        }
        let wanted = [batch, rows * columns, self.config.width()];
        for x in extras.residuals.iter().chain(extras.after_first_block) {
            if x.dims() != wanted {
                return fail(format!(
                    "a ControlNet tensor has shape {:?}, expected {wanted:?}",
                    x.dims()
                ));
            }
        }
        if let Some(perturbed) = &extras.perturbed {
            if let Some(layer) = perturbed.layers.iter().find(|layer| **layer >= blocks) {
                return fail(format!(
                    "perturbed layer {layer} does not exist; the transformer has {blocks} blocks"
                ));
            }
            if perturbed.rows.start > perturbed.rows.end || perturbed.rows.end > batch {
                return fail(format!(
                    "perturbed rows {:?} of a batch of {batch}",
                    perturbed.rows
                ));
            }
        }
        Ok(())
    }
}
