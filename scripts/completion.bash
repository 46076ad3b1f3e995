# SPDX-License-Identifier: MIT
# Completion of steady(1) for bash. The words come from the help of the command itself.

_steady_names() { # COMMAND: the options of COMMAND; without COMMAND: the commands
    if [ -n "$1" ]; then
        "$_steady" help "$1" 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p'
    else
        "$_steady" help 2>/dev/null | sed -n 's/^  steady \([a-z]*\) .*/\1/p' | sort -u
    fi
}

_steady_unused() { # COMMAND: the options of COMMAND that are not on the line yet, and those that repeat
    local option word
    for option in $(_steady_names "$1"); do
        for word in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
            [ "$word" = "$option" ] && [[ $option != --rate && $option != --field ]] && continue 2
        done
        echo "$option"
    done
}

_steady_verbs() { # those of admin, unless one of them is on the line
    local verb verbs word
    verbs=$("$_steady" help admin 2>/dev/null | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p')
    for word in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
        for verb in $verbs; do
            [ "$word" = "$verb" ] && return
        done
    done
    echo "$verbs"
}

_steady_values() { # OPTION TYPED
    case $1 in
    --on-error) echo report deny allow local ;;
    --engine) echo auto script module ;;
    --config | --log | --against | --html | --verdicts) compgen -f -- "$2" ;;
    --format) "$_steady" replay --help 2>/dev/null | sed -n '/^Formats:/,/^$/s/^  \([a-z0-9-]*\) .*/\1/p' ;;
    --at) echo begin end ;;
    --key) echo ip path host method header: cookie: query: hash: ;;
    --suggest) echo 99% 99.9% 99.99% 100% ;;
    --listen | --admin) echo unix: 127.0.0.1: ;;
    --store) echo file: memory: redis:// redis+sentinel:// rediss:// rediss+sentinel:// unix: valkey:// valkeys:// ;;
    --recharge | --block | --max-wait | --timeout)
        [[ $2 =~ ^([0-9.]*[0-9])[a-z]*$ ]] && printf "${BASH_REMATCH[1]}%s " us ms s m h d ;;
    --rate | --limit)
        [[ $2 =~ ^([0-9]+)(/.*)?$ ]] && printf "${BASH_REMATCH[1]}/%s " s min hour day ;;
    esac
}

_steady() {
    local _steady=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words
    COMPREPLY=()
    if [ "$cur" = "=" ] || [ "$prev" = "=" ]; then # --option=VALUE or NAME=VALUE, split by COMP_WORDBREAKS
        local at=$((COMP_CWORD - 1))
        [ "$cur" = "=" ] && cur= || at=$((at - 1))
        if [[ ${COMP_WORDS[at]} != --* ]]; then # --rate NAME=VALUE or --rate=NAME=VALUE
            at=$((at - 1))
            [ "${COMP_WORDS[at]}" = "=" ] && at=$((at - 1))
        fi
        prev=${COMP_WORDS[at]}
    fi
    if [ "$COMP_CWORD" = 1 ]; then
        words=$(_steady_names)
    elif [[ $prev = --* && ! $prev =~ ^--(json|charge|help|spread|csv|hash-keys|once|)$ ]]; then
        words=$(_steady_values "$prev" "$cur")
        [ "$prev" = --store ] && compopt -o nospace 2>/dev/null
    elif [[ ${COMP_WORDS[1]} =~ ^(check|replay)$ && $cur != -* ]]; then
        words=$(compgen -f -- "$cur")
    elif [ "${COMP_WORDS[1]}" = admin ] && [[ $cur != -* ]]; then
        words=$(_steady_verbs)
    elif [ "${COMP_WORDS[1]}" = help ] && [ "$COMP_CWORD" = 2 ] && [[ $cur != -* ]]; then
        words=$(_steady_names)
    elif [[ $cur = -* ]]; then
        words=$(_steady_unused "${COMP_WORDS[1]}")
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _steady steady
