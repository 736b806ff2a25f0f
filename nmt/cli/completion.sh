# Completion of the command nmt, for bash and zsh: commands, options node by node, values, experiments, sweeps, runs.
# Printed by `nmt completion bash` and `nmt completion zsh`; made by scripts/make_options_page.py (`make options`).

if [ -n "${ZSH_VERSION-}" ]; then
    autoload -Uz compinit bashcompinit
    (( $+functions[compdef] )) || compinit
    bashcompinit
fi

_nmt_arguments() {
    case $1 in
    train) echo 'name=
runs=<file>
seed=
data.format=builtin,text,tsv,parquet,jsonl,hub
data.train=<file>
data.valid=<file>
data.test=<file>
data.extra_tests=<file>
data.source_lang=
data.target_lang=
data.max_pairs=
data.corpora=<file>
data.temperature=
data.stages=
data.languages=
data.zero_shot=
data.tags=none,source,decoder
data.hf_dataset=<file>
data.hf_config=
data.streaming=true,false
data.shuffle_buffer=
data.column=
data.columns=
data.synthetic.train=
data.synthetic.valid=
data.synthetic.test=
data.synthetic.long=
data.synthetic.seed=
data.max_length=
data.max_length_ratio=
data.train_alignments=<file>
data.error_on_dropped=true,false
data.cache_dir=<file>
data.augment.terms=
data.tokenizer.type=unigram,bpe,word,char,pretokenized
data.tokenizer.model=<file>
data.tokenizer.symbols=
data.tokenizer.vocab_size=
data.tokenizer.exact_size=true,false
data.tokenizer.joint=true,false
data.tokenizer.byte_fallback=true,false
data.tokenizer.character_coverage=
data.tokenizer.normalization=identity,nfkc,nmt_nfkc
data.tokenizer.lowercase=true,false
data.tokenizer.max_training_pairs=
data.tokenizer.max_training_characters=
data.tokenizer.subword_regularization=
model.match=none,parameters,flops
model.match_width=
model.match_score=additive,dot,scaled,general,cosine,location,hybrid,none
model.cell=gru,lstm
model.embedding_dim=
model.hidden_size=
model.encoder_layers=
model.bidirectional=true,false
model.dropout=
model.decoder_layers=
model.decoder=bahdanau,input_feeding,luong
model.bridge=linear,zero
model.attention.score=additive,dot,scaled,general,cosine,location,hybrid,none
model.attention.heads=
model.attention.dim=
model.attention.project_qk=true,false
model.attention.divisor=
model.attention.max_positions=
model.attention.normalizer=softmax,sparsemax,entmax15,top_k
model.attention.top_k=
model.attention.window=global,local_m,local_p
model.attention.window_size=
model.attention.coverage=true,false
model.attention.dropout=
model.attention.per_layer=
model.architecture=rnn,transformer,transformer_rnn,rnn_transformer
model.tie_embeddings=none,output,all
init.checkpoint=<file>
init.modules=
init.on_mismatch=error,skip
init.vocabulary=keep,map
optim.learning_rate=
optim.schedule=constant,inverse_sqrt,cosine,plateau
optim.warmup_updates=
optim.min_lr_ratio=
optim.plateau_factor=
optim.plateau_patience=
optim.beta1=
optim.beta2=
optim.epsilon=
optim.weight_decay=
optim.clip_norm=
optim.lr_scales=
train.on_divergence=off,skip,rollback
train.max_grad_norm_ratio=
train.keep_last_checkpoints=
train.keep_best_checkpoints=
train.average_checkpoints=none,last,best
train.label_smoothing=
train.coverage_loss_weight=
train.r_drop_alpha=
train.guided_alignment_weight=
train.guided_layer=
train.guided_head=
train.word_dropout=
train.target_word_dropout=
train.max_updates=
train.max_epochs=
train.max_minutes=
train.batch_tokens=
train.devices=
train.gradient_accumulation=
train.ema_decay=
train.precision=auto,fp32,tf32,bf16,fp16
train.compile=true,false
train.deterministic=true,false
train.log_every=
train.valid_every=
train.save_every=
train.valid_bleu_sentences=
train.early_stopping_metric=bleu,chrf,loss,aer
train.early_stopping_set=
train.patience=
search.method=beam,sample,mbr
search.beam_size=
search.batch_size=
search.batch_tokens=
search.precision=auto,fp32,tf32,bf16,fp16
search.length_normalization=power,gnmt
search.length_penalty=
search.coverage_penalty=
search.min_length_ratio=
search.min_length_offset=
search.max_length_ratio=
search.max_length_offset=
search.early_stopping=never,lookahead,beam
search.lookahead=
search.n_best=
search.diverse_groups=
search.diversity_penalty=
search.no_repeat_ngram_size=
search.replace_unknown=none,copy,forbid
search.seed=
search.mbr_samples=
search.temperature=
search.top_k=
search.top_p=
search.mbr_utility=chrf,bleu
metrics.tokenize=13a,intl,zh,char,none,ja-mecab,ko-mecab
metrics.lowercase=true,false
metrics.names=bleu,chrf,chrf++,ter
metrics.num_resamples=
metrics.significance_test=bootstrap,randomization
metrics.breakdown=true,false
metrics.plugins=<file>
alignment.layer=
alignment.head=
alignment.shift=auto,0,1
alignment.decision=auto,argmax,threshold
alignment.threshold=
alignment.allow_null=auto,true,false
alignment.selection_pairs=
alignment.head_importance_pairs=
device=
num_threads=
plugins=<file>
model.d_model=
model.ffn_dim=
model.norm=layer,rms
model.norm_position=pre,post
model.positions=sinusoidal,learned,rotary
model.max_positions=
model.activation=relu,gelu,swiglu
model.activation_dropout=
model.layerdrop=
model.encoder_self_attention.score=additive,dot,scaled,general,cosine,location,hybrid
model.encoder_self_attention.heads=
model.encoder_self_attention.dim=
model.encoder_self_attention.project_qk=true,false
model.encoder_self_attention.divisor=
model.encoder_self_attention.max_positions=
model.encoder_self_attention.normalizer=softmax,sparsemax,entmax15,top_k
model.encoder_self_attention.top_k=
model.encoder_self_attention.window=global,sliding
model.encoder_self_attention.window_size=
model.encoder_self_attention.coverage=true,false
model.encoder_self_attention.dropout=
model.encoder_self_attention.per_layer=
model.decoder_self_attention.score=additive,dot,scaled,general,cosine,location,hybrid
model.decoder_self_attention.heads=
model.decoder_self_attention.dim=
model.decoder_self_attention.project_qk=true,false
model.decoder_self_attention.divisor=
model.decoder_self_attention.max_positions=
model.decoder_self_attention.normalizer=softmax,sparsemax,entmax15,top_k
model.decoder_self_attention.top_k=
model.decoder_self_attention.window=global,sliding
model.decoder_self_attention.window_size=
model.decoder_self_attention.coverage=true,false
model.decoder_self_attention.dropout=
model.decoder_self_attention.per_layer=
sweep=attention,beam,decoder,depth,heads,label_smoothing,norm,normalizer,placement,window
launcher=serial,processes,slurm
jobs=
slurm=
config=<file>
data=builtin,hub,jsonl,parquet,text,tsv
model=rnn,rnn_transformer,transformer,transformer_rnn
experiment=debug,enja_rnn,finetune_multi30k,iwslt14_deen_rnn,iwslt14_deen_transformer,iwslt15_envi_rnn,iwslt15_envi_transformer,iwslt17_deen_transformer,libreoffice_eneu,multi30k_rnn,multi30k_rnn_enfr,multi30k_transformer,multi30k_transformer_enfr,wmt14_ende_transformer,wmt14_enfr_transformer,wmt16_roen_transformer
--help
--cfg
--config-dir
--multirun
--quiet
--version' ;;
    evaluate) echo 'checkpoint=<file>
output=<file>
hypotheses=<file>
markup=<file>
baselines=<file>
external_scores=<file>
data.format=builtin,text,tsv,parquet,jsonl,hub
data.train=<file>
data.valid=<file>
data.test=<file>
data.extra_tests=<file>
data.source_lang=
data.target_lang=
data.max_pairs=
data.corpora=<file>
data.temperature=
data.stages=
data.languages=
data.zero_shot=
data.tags=none,source,decoder
data.hf_dataset=<file>
data.hf_config=
data.streaming=true,false
data.shuffle_buffer=
data.column=
data.columns=
data.synthetic.train=
data.synthetic.valid=
data.synthetic.test=
data.synthetic.long=
data.synthetic.seed=
data.max_length=
data.max_length_ratio=
data.train_alignments=<file>
data.error_on_dropped=true,false
data.cache_dir=<file>
data.augment.terms=
data.tokenizer.type=unigram,bpe,word,char,pretokenized
data.tokenizer.model=<file>
data.tokenizer.symbols=
data.tokenizer.vocab_size=
data.tokenizer.exact_size=true,false
data.tokenizer.joint=true,false
data.tokenizer.byte_fallback=true,false
data.tokenizer.character_coverage=
data.tokenizer.normalization=identity,nfkc,nmt_nfkc
data.tokenizer.lowercase=true,false
data.tokenizer.max_training_pairs=
data.tokenizer.max_training_characters=
data.tokenizer.subword_regularization=
search.method=beam,sample,mbr
search.beam_size=
search.batch_size=
search.batch_tokens=
search.precision=auto,fp32,tf32,bf16,fp16
search.length_normalization=power,gnmt
search.length_penalty=
search.coverage_penalty=
search.min_length_ratio=
search.min_length_offset=
search.max_length_ratio=
search.max_length_offset=
search.early_stopping=never,lookahead,beam
search.lookahead=
search.n_best=
search.diverse_groups=
search.diversity_penalty=
search.no_repeat_ngram_size=
search.replace_unknown=none,copy,forbid
search.seed=
search.mbr_samples=
search.temperature=
search.top_k=
search.top_p=
search.mbr_utility=chrf,bleu
metrics.tokenize=13a,intl,zh,char,none,ja-mecab,ko-mecab
metrics.lowercase=true,false
metrics.names=bleu,chrf,chrf++,ter
metrics.num_resamples=
metrics.significance_test=bootstrap,randomization
metrics.breakdown=true,false
metrics.plugins=<file>
alignment.layer=
alignment.head=
alignment.shift=auto,0,1
alignment.decision=auto,argmax,threshold
alignment.threshold=
alignment.allow_null=auto,true,false
alignment.selection_pairs=
alignment.head_importance_pairs=
tag=
engine=torch,auto,ctranslate2,ctranslate2_int8
device=
num_threads=
plugins=<file>
sweep=attention,beam,decoder,depth,heads,label_smoothing,norm,normalizer,placement,window
launcher=serial,processes,slurm
jobs=
slurm=
data=builtin,hub,jsonl,parquet,text,tsv
--help
--cfg
--config-dir
--multirun
--quiet
--version' ;;
    translate) echo 'checkpoint=<file>
input=<file>
output=<file>
format=text,jsonl
input_format=text,jsonl
markup=<file>
placeholders=true,false
reverse=<file>
glossary=<file>
glossary_mode=hard,soft
max_length=
search.method=beam,sample,mbr
search.beam_size=
search.batch_size=
search.batch_tokens=
search.precision=auto,fp32,tf32,bf16,fp16
search.length_normalization=power,gnmt
search.length_penalty=
search.coverage_penalty=
search.min_length_ratio=
search.min_length_offset=
search.max_length_ratio=
search.max_length_offset=
search.early_stopping=never,lookahead,beam
search.lookahead=
search.n_best=
search.diverse_groups=
search.diversity_penalty=
search.no_repeat_ngram_size=
search.replace_unknown=none,copy,forbid
search.seed=
search.mbr_samples=
search.temperature=
search.top_k=
search.top_p=
search.mbr_utility=chrf,bleu
target_lang=
tag=
engine=torch,auto,ctranslate2,ctranslate2_int8
device=
num_threads=
plugins=<file>
sweep=attention,beam,decoder,depth,heads,label_smoothing,norm,normalizer,placement,window
launcher=serial,processes,slurm
jobs=
slurm=
--help
--cfg
--config-dir
--multirun
--quiet
--version' ;;
    align) echo 'checkpoint=<file>
source=<file>
target=<file>
gold=<file>
reverse=<file>
symmetrize=intersection,union,grow-diag,grow-diag-final,grow-diag-final-and
output=<file>
formats=pharaoh,npz,jsonl,parquet
markup=<file>
save_weights=true,false
alignment.layer=
alignment.head=
alignment.shift=auto,0,1
alignment.decision=auto,argmax,threshold
alignment.threshold=
alignment.allow_null=auto,true,false
alignment.selection_pairs=
alignment.head_importance_pairs=
target_lang=
tag=
device=
num_threads=
plugins=<file>
sweep=attention,beam,decoder,depth,heads,label_smoothing,norm,normalizer,placement,window
launcher=serial,processes,slurm
jobs=
slurm=
--help
--cfg
--config-dir
--multirun
--quiet
--version' ;;
    score) echo 'checkpoint=<file>
source=<file>
target=<file>
reverse=<file>
rerank=true,false
format=text,jsonl,tsv
output=<file>
search.method=beam,sample,mbr
search.beam_size=
search.batch_size=
search.batch_tokens=
search.precision=auto,fp32,tf32,bf16,fp16
search.length_normalization=power,gnmt
search.length_penalty=
search.coverage_penalty=
search.min_length_ratio=
search.min_length_offset=
search.max_length_ratio=
search.max_length_offset=
search.early_stopping=never,lookahead,beam
search.lookahead=
search.n_best=
search.diverse_groups=
search.diversity_penalty=
search.no_repeat_ngram_size=
search.replace_unknown=none,copy,forbid
search.seed=
search.mbr_samples=
search.temperature=
search.top_k=
search.top_p=
search.mbr_utility=chrf,bleu
target_lang=
tag=
device=
num_threads=
plugins=<file>
sweep=attention,beam,decoder,depth,heads,label_smoothing,norm,normalizer,placement,window
launcher=serial,processes,slurm
jobs=
slurm=
--help
--cfg
--config-dir
--multirun
--quiet
--version' ;;
    export) echo 'checkpoint=<file>
format=ctranslate2,huggingface,onnx
output=<file>
max_length=
search.method=beam,sample,mbr
search.beam_size=
search.batch_size=
search.batch_tokens=
search.precision=auto,fp32,tf32,bf16,fp16
search.length_normalization=power,gnmt
search.length_penalty=
search.coverage_penalty=
search.min_length_ratio=
search.min_length_offset=
search.max_length_ratio=
search.max_length_offset=
search.early_stopping=never,lookahead,beam
search.lookahead=
search.n_best=
search.diverse_groups=
search.diversity_penalty=
search.no_repeat_ngram_size=
search.replace_unknown=none,copy,forbid
search.seed=
search.mbr_samples=
search.temperature=
search.top_k=
search.top_p=
search.mbr_utility=chrf,bleu
num_threads=
plugins=<file>
sweep=attention,beam,decoder,depth,heads,label_smoothing,norm,normalizer,placement,window
launcher=serial,processes,slurm
jobs=
slurm=
--help
--cfg
--config-dir
--multirun
--quiet
--version' ;;
    serve) echo 'checkpoint=<file>
host=
port=
allowed_hosts=
max_bytes=
max_sentences=
max_sentence_chars=
max_beam=
max_weights=
timeout=
queue_size=
max_length=
glossary=<file>
glossary_mode=hard,soft
search.method=beam,sample,mbr
search.beam_size=
search.batch_size=
search.batch_tokens=
search.precision=auto,fp32,tf32,bf16,fp16
search.length_normalization=power,gnmt
search.length_penalty=
search.coverage_penalty=
search.min_length_ratio=
search.min_length_offset=
search.max_length_ratio=
search.max_length_offset=
search.early_stopping=never,lookahead,beam
search.lookahead=
search.n_best=
search.diverse_groups=
search.diversity_penalty=
search.no_repeat_ngram_size=
search.replace_unknown=none,copy,forbid
search.seed=
search.mbr_samples=
search.temperature=
search.top_k=
search.top_p=
search.mbr_utility=chrf,bleu
engine=torch,auto,ctranslate2,ctranslate2_int8
device=
num_threads=
plugins=<file>
sweep=attention,beam,decoder,depth,heads,label_smoothing,norm,normalizer,placement,window
launcher=serial,processes,slurm
jobs=
slurm=
--help
--cfg
--config-dir
--multirun
--quiet
--version' ;;
    trim) echo 'checkpoint=<file>
text=<file>
output=<file>
plugins=<file>
sweep=attention,beam,decoder,depth,heads,label_smoothing,norm,normalizer,placement,window
launcher=serial,processes,slurm
jobs=
slurm=
--help
--cfg
--config-dir
--multirun
--quiet
--version' ;;
    clean) echo 'source=<file>
target=<file>
source_lang=
target_lang=
output=<file>
filters.min_characters.enabled=true,false
filters.min_characters.dry=true,false
filters.min_characters.min=
filters.max_characters.enabled=true,false
filters.max_characters.dry=true,false
filters.max_characters.max=
filters.min_words.enabled=true,false
filters.min_words.dry=true,false
filters.min_words.min=
filters.max_words.enabled=true,false
filters.max_words.dry=true,false
filters.max_words.max=
filters.identical.enabled=true,false
filters.identical.dry=true,false
filters.identical.max=
filters.script.enabled=true,false
filters.script.dry=true,false
filters.script.min=
filters.language.enabled=true,false
filters.language.dry=true,false
filters.language.min=
filters.length_ratio.enabled=true,false
filters.length_ratio.dry=true,false
filters.length_ratio.max=
filters.repetition.enabled=true,false
filters.repetition.dry=true,false
filters.repetition.max=
filters.urls.enabled=true,false
filters.urls.dry=true,false
filters.urls.max=
filters.emails.enabled=true,false
filters.emails.dry=true,false
filters.emails.max=
filters.brackets.enabled=true,false
filters.brackets.dry=true,false
filters.brackets.max=
filters.numbers.enabled=true,false
filters.numbers.dry=true,false
filters.numbers.max=
filters.lexical.enabled=true,false
filters.lexical.dry=true,false
filters.lexical.min=
filters.truncation.enabled=true,false
filters.truncation.dry=true,false
filters.truncation.max=
filters.test_overlap.enabled=true,false
filters.test_overlap.dry=true,false
filters.test_overlap.max=
filters.duplicate_pairs.enabled=true,false
filters.duplicate_pairs.dry=true,false
filters.duplicate_pairs.max=
filters.duplicate_normalized.enabled=true,false
filters.duplicate_normalized.dry=true,false
filters.duplicate_normalized.max=
filters.duplicate_source.enabled=true,false
filters.duplicate_source.dry=true,false
filters.duplicate_source.max=
filters.duplicate_target.enabled=true,false
filters.duplicate_target.dry=true,false
filters.duplicate_target.max=
filters.model.enabled=true,false
filters.model.dry=true,false
filters.model.min=
filters.coverage.enabled=true,false
filters.coverage.dry=true,false
filters.coverage.min=
filters.dual.enabled=true,false
filters.dual.dry=true,false
filters.dual.min=
tests=<file>
checkpoint=<file>
reverse=<file>
device=
num_threads=
plugins=<file>
sweep=attention,beam,decoder,depth,heads,label_smoothing,norm,normalizer,placement,window
launcher=serial,processes,slurm
jobs=
slurm=
--help
--cfg
--config-dir
--multirun
--quiet
--version' ;;
    tune)
        _nmt_arguments train | grep -Ev '^(-|(sweep|launcher|jobs|slurm)=)'
        printf '%s\n' --trials --metric --seed --help
        ;;
    esac
}

# _nmt_offer CANDIDATE END: adds a candidate unless it is there already, END after it.
_nmt_offer() {
    local candidate="${1#"$_nmt_cut"}$2" other
    for other in ${COMPREPLY[@]+"${COMPREPLY[@]}"}; do
        [ "$other" = "$candidate" ] && return
    done
    COMPREPLY+=("$candidate")
}

# _nmt_files FOLDER …: prints the names of the configurations in a folder and those below it.
_nmt_files() {
    (cd "$1" 2> /dev/null && find -L . "${@:2}" -name '*.yaml' | sed 's|^\./||; s/\.yaml$//')
}

# _nmt_values OPTION= TYPED CHOICES: adds the values of an option that begin as TYPED does.
_nmt_values() {
    local item value="$2" before=""
    if [ "$3" = "<file>" ]; then
        [ -z "$value" ] && [ "$1" = "checkpoint=" ] && [ -d runs ] && value=runs/
        while IFS= read -r item; do
            if [ -d "$item" ]; then _nmt_offer "$1$item/" ""; elif [ -n "$item" ]; then _nmt_offer "$1$item" "$_nmt_end"; fi
        done <<< "$(compgen -f -- "$value"; [ "$1" = "config=" ] && _nmt_files configs -maxdepth 1 | grep "^$value")"
        return
    fi
    case $value in # several values, or a list of them
    *,*) before="${value%,*}," value="${value##*,}" ;;
    \[*) before="[" value="${value#?}" ;;
    esac
    while IFS= read -r item; do
        [[ -n $item && $item == "$value"* ]] && _nmt_offer "$1$before$item" "$_nmt_end"
    done <<< "$(printf '%s' "$3" | tr ',' '\n'; echo; [ -n "$1" ] && _nmt_files "configs/${1%=}")"
}

_nmt() {
    local line="${COMP_LINE:0:$COMP_POINT}" command="${COMP_WORDS[1]-}" current entry name rest
    local _nmt_end=" " _nmt_cut=""
    current="${line##* }"
    COMPREPLY=()
    if [ -n "${ZSH_VERSION-}" ]; then
        _nmt_end=""
    elif [[ $COMP_WORDBREAKS == *=* && $current == *=* ]]; then
        _nmt_cut="${current%"${current##*=}"}" # bash replaces what follows the last =
    fi
    if [ "$COMP_CWORD" -le 1 ]; then
        _nmt_values "" "$current" "train,evaluate,align,translate,score,export,trim,clean,serve,tune,compare,completion,--help,--version"
        return
    fi
    entry="${line% *}"
    case ${entry##* } in # the word before
    -c | --cfg) _nmt_values "" "$current" "job" && return ;;
    --metric) _nmt_values "" "$current" "bleu,chrf,loss,aer" && return ;;
    esac
    [ "$command" = completion ] && _nmt_values "" "$current" "bash,zsh"
    while IFS= read -r entry; do
        name="${entry%%=*}="
        if [[ $entry == -* ]]; then
            [[ $current == -* && $entry == "$current"* ]] && _nmt_offer "$entry" "$_nmt_end"
        elif [[ $current == "$name"* ]]; then
            _nmt_values "$name" "${current#"$name"}" "${entry#*=}"
        elif [[ -n $entry && $name == "$current"* ]]; then
            rest="${name#"$current"}"
            case $rest in
            *.*) _nmt_offer "$current${rest%%.*}." "" ;;
            *) _nmt_offer "$name" "" ;;
            esac
        fi
    done <<< "$(_nmt_arguments "$command")"
}

complete -o nospace -o default -F _nmt nmt
