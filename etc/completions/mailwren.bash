# Completion of mailwren for bash.
# Made from the table of commands: MAILWREN_WRITE_SAMPLE=1 cargo test --test documents

_mailwren() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' verb='' words='' at
    COMPREPLY=()
    [[ $previous == = ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}
    [[ $word == = ]] && word=''
    case $previous in
        --ca|--config) mapfile -t COMPREPLY < <(compgen -f -- "$word")
            compopt -o filenames 2>/dev/null; return ;;
        --dir) mapfile -t COMPREPLY < <(compgen -d -- "$word")
            compopt -o filenames 2>/dev/null; return ;;
        --from|--listen|--root|--sender|--smarthost|--tls|--to|--user) return ;;
    esac
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${COMP_WORDS[at]} in
            --ca|--config|--dir|--from|--listen|--root|--sender|--smarthost|--tls|--to|--user)
                [[ ${COMP_WORDS[at + 1]} == = ]] && ((at++))
                ((at++)) ;;
            -*) ;;
            *) if [[ -z $command ]]; then command=${COMP_WORDS[at]}
               elif [[ -z $verb ]]; then verb=${COMP_WORDS[at]}; fi ;;
        esac
    done
    case $command in
        '') words='--config --help --version help serve demo sendmail check setup route aliases passwd queue status trace' ;;
        help) words='serve demo sendmail check setup route aliases passwd queue status trace' ;;
        serve) words='--config --help' ;;
        demo) words='--config --help --listen --dir' ;;
        sendmail) words='--config --help' ;;
        check) words='--config --help --fix' ;;
        setup) words='--config --help --smarthost --user --password-stdin --root --sender --tls --ca --yes --no-test --dry-run' ;;
        route) words='--config --help' ;;
        aliases) words='--config --help' ;;
        passwd) words='--config --help --delete' ;;
        queue) words='--config --help --json --envelope --headers --all --to --from'; [[ -n $verb ]] || words+=' list show retry hold release delete bounce' ;;
        status) words='--config --help --json' ;;
        trace) words='--config --help --json' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _mailwren mailwren
