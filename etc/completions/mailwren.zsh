#compdef mailwren
# Completion of mailwren for zsh.
# Made from the table of commands: MAILWREN_WRITE_SAMPLE=1 cargo test --test documents

_mailwren() {
    local state line
    local -a commands verbs
    _arguments -C \
        '--config[the configuration, if it is not the usual one]:FILE:_files' \
        '--help[what the command does]' \
        '--version[the version]' '1: :->command' '*:: :->rest'
    commands=(
        'serve:run the server in the foreground'
        'demo:try it\: no configuration, no privileges, mail for anybody into a folder'
        'sendmail:submit a message from standard input, as programs call sendmail'
        'check:look at the configuration and the host and say what is wrong, file\:line\: what, what to do'
        'setup:ask for the provider, the account and where root'\''s mail goes; try it, then write it'
        'route:say where mail to each address would go, sending nothing'
        'aliases:read the alias files and say what is wrong, file\:line\: what, what to do'
        'passwd:set the password of an account of the users file, or remove the account'
        'queue:what is in the queue, and what is to become of it'
        'status:say how the server and its queue are, on one screen'
        'trace:tell the story of a message, or of the last messages of somebody'
    )
    case $state in
    command)
        commands+=('help:what there is')
        _describe command commands ;;
    rest)
        case $words[1] in
        help) (( CURRENT > 2 )) || _describe command commands ;;
        serve)
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' ;;
        demo)
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' \
                '--listen[where it listens; 127.0.0.1\:2525 if not said]:HOST\:PORT: ' \
                '--dir[where everything goes; ./mailwren-demo if not said]:DIR:_files -/' ;;
        sendmail)
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' ;;
        check)
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' \
                '--fix[mend owners and modes, and make folders that are missing; say what was done]' ;;
        setup)
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' \
                '--smarthost[who takes mail; a provider'\''s name, or none]:HOST\:PORT: ' \
                '--user[the account there; empty for no login]:NAME: ' \
                '--password-stdin[the password is the first line of standard input]' \
                '--root[where root'\''s mail goes]:ADDRESS: ' \
                '--sender[the address that this host'\''s mail comes from]:ADDRESS: ' \
                '--tls[starttls, implicit, opportunistic or none, if not as the port says]:HOW: ' \
                '--ca[the certificates, PEM, to trust instead of the system'\''s]:FILE:_files' \
                '--yes[ask nothing]' \
                '--no-test[try nothing\: for a host that has no network yet]' \
                '--dry-run[say what would be written; try and write nothing]' ;;
        route)
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' ;;
        aliases)
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' ;;
        passwd)
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' \
                '--delete[remove the account]' ;;
        queue)
            verbs=(
                'list:age, size, sender, recipients, next try, last reply'
                'show:the envelope, what became of it, the message'
                'retry:try it now, whatever the schedule says'
                'hold:do not try it until it is released; held time is no age'
                'release:hold it no longer, and try it now'
                'delete:remove it and tell nobody'
                'bounce:give it up\: its sender gets a report'
            )
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' \
                '--json[an array with an object for each message, for programs]' \
                '--envelope[show\: the envelope alone]' \
                '--headers[show\: the envelope and the header section]' \
                '--all[every message]' \
                '--to[messages with a recipient there, or this one, still to get it]:DOMAIN: ' \
                '--from[messages of this sender, or this domain; <> is reports]:ADDRESS: ' \
                '1: :{_describe verb verbs}' ;;
        status)
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' \
                '--json[as an object, for programs]' ;;
        trace)
            _arguments \
                '--config[the configuration, if it is not the usual one]:FILE:_files' \
                '--help[what the command does]' \
                '--json[as an object, for programs]' ;;
        esac ;;
    esac
}

_mailwren "$@"
