# Completion of the command nmt, for bash and zsh: commands, options node by node, values, experiments, sweeps, runs.
# Printed by `nmt completion bash` and `nmt completion zsh`; made by scripts/make_options_page.py (`make options`).

if [ -n "${ZSH_VERSION-}" ]; then
    autoload -Uz compinit bashcompinit
    (( $+functions[compdef] )) || compinit
    bashcompinit
fi

_nmt_arguments() {
    case $1 in
    @arguments@
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
        _nmt_values "" "$current" "@commands@,--help,--version"
        return
    fi
    entry="${line% *}"
    case ${entry##* } in # the word before
    -c | --cfg) _nmt_values "" "$current" "job" && return ;;
    --metric) _nmt_values "" "$current" "@metrics@" && return ;;
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
