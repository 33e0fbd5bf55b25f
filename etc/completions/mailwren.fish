# Completion of mailwren for fish.
# Made from the table of commands: MAILWREN_WRITE_SAMPLE=1 cargo test --test documents

# The words so far that are neither options nor their values.
function __mailwren_words
    set -l is_value no
    for word in (commandline -opc)[2..-1]
        if test $is_value = yes
            set is_value no
            continue
        end
        switch $word
            case --ca --config --dir --from --listen --root --sender --smarthost --tls --to --user
                set is_value yes
            case '-*'
            case '*'
                echo $word
        end
    end
end

# Whether they begin with these, of which the last may be empty: there is none yet.
function __mailwren_is
    set -l words (__mailwren_words)
    set -l last (count $argv)
    test "$words[1..$last]" = (string trim -- "$argv")
end

complete -c mailwren -f
complete -c mailwren -l config -r -F -d 'the configuration, if it is not the usual one'
complete -c mailwren -l help -d 'what the command does'
complete -c mailwren -n '__mailwren_is ""' -l version -d 'the version'
complete -c mailwren -n '__mailwren_is ""' -a help -d 'what there is'
complete -c mailwren -n '__mailwren_is ""' -a serve -d 'run the server in the foreground'
complete -c mailwren -n '__mailwren_is help ""' -a serve -d 'run the server in the foreground'
complete -c mailwren -n '__mailwren_is ""' -a demo -d 'try it: no configuration, no privileges, mail for anybody into a folder'
complete -c mailwren -n '__mailwren_is help ""' -a demo -d 'try it: no configuration, no privileges, mail for anybody into a folder'
complete -c mailwren -n '__mailwren_is ""' -a sendmail -d 'submit a message from standard input, as programs call sendmail'
complete -c mailwren -n '__mailwren_is help ""' -a sendmail -d 'submit a message from standard input, as programs call sendmail'
complete -c mailwren -n '__mailwren_is ""' -a check -d 'look at the configuration and the host and say what is wrong, file:line: what, what to do'
complete -c mailwren -n '__mailwren_is help ""' -a check -d 'look at the configuration and the host and say what is wrong, file:line: what, what to do'
complete -c mailwren -n '__mailwren_is ""' -a setup -d 'ask for the provider, the account and where root'\''s mail goes; try it, then write it'
complete -c mailwren -n '__mailwren_is help ""' -a setup -d 'ask for the provider, the account and where root'\''s mail goes; try it, then write it'
complete -c mailwren -n '__mailwren_is ""' -a route -d 'say where mail to each address would go, sending nothing'
complete -c mailwren -n '__mailwren_is help ""' -a route -d 'say where mail to each address would go, sending nothing'
complete -c mailwren -n '__mailwren_is ""' -a aliases -d 'read the alias files and say what is wrong, file:line: what, what to do'
complete -c mailwren -n '__mailwren_is help ""' -a aliases -d 'read the alias files and say what is wrong, file:line: what, what to do'
complete -c mailwren -n '__mailwren_is ""' -a passwd -d 'set the password of an account of the users file, or remove the account'
complete -c mailwren -n '__mailwren_is help ""' -a passwd -d 'set the password of an account of the users file, or remove the account'
complete -c mailwren -n '__mailwren_is ""' -a queue -d 'what is in the queue, and what is to become of it'
complete -c mailwren -n '__mailwren_is help ""' -a queue -d 'what is in the queue, and what is to become of it'
complete -c mailwren -n '__mailwren_is ""' -a status -d 'say how the server and its queue are, on one screen'
complete -c mailwren -n '__mailwren_is help ""' -a status -d 'say how the server and its queue are, on one screen'
complete -c mailwren -n '__mailwren_is ""' -a trace -d 'tell the story of a message, or of the last messages of somebody'
complete -c mailwren -n '__mailwren_is help ""' -a trace -d 'tell the story of a message, or of the last messages of somebody'
complete -c mailwren -n '__mailwren_is demo' -l listen -x -d 'where it listens; 127.0.0.1:2525 if not said'
complete -c mailwren -n '__mailwren_is demo' -l dir -x -a '(__fish_complete_directories)' -d 'where everything goes; ./mailwren-demo if not said'
complete -c mailwren -n '__mailwren_is check' -l fix -d 'mend owners and modes, and make folders that are missing; say what was done'
complete -c mailwren -n '__mailwren_is setup' -l smarthost -x -d 'who takes mail; a provider'\''s name, or none'
complete -c mailwren -n '__mailwren_is setup' -l user -x -d 'the account there; empty for no login'
complete -c mailwren -n '__mailwren_is setup' -l password-stdin -d 'the password is the first line of standard input'
complete -c mailwren -n '__mailwren_is setup' -l root -x -d 'where root'\''s mail goes'
complete -c mailwren -n '__mailwren_is setup' -l sender -x -d 'the address that this host'\''s mail comes from'
complete -c mailwren -n '__mailwren_is setup' -l tls -x -d 'starttls, implicit, opportunistic or none, if not as the port says'
complete -c mailwren -n '__mailwren_is setup' -l ca -r -F -d 'the certificates, PEM, to trust instead of the system'\''s'
complete -c mailwren -n '__mailwren_is setup' -l yes -d 'ask nothing'
complete -c mailwren -n '__mailwren_is setup' -l no-test -d 'try nothing: for a host that has no network yet'
complete -c mailwren -n '__mailwren_is setup' -l dry-run -d 'say what would be written; try and write nothing'
complete -c mailwren -n '__mailwren_is passwd' -l delete -d 'remove the account'
complete -c mailwren -n '__mailwren_is queue' -l json -d 'an array with an object for each message, for programs'
complete -c mailwren -n '__mailwren_is queue' -l envelope -d 'show: the envelope alone'
complete -c mailwren -n '__mailwren_is queue' -l headers -d 'show: the envelope and the header section'
complete -c mailwren -n '__mailwren_is queue' -l all -d 'every message'
complete -c mailwren -n '__mailwren_is queue' -l to -x -d 'messages with a recipient there, or this one, still to get it'
complete -c mailwren -n '__mailwren_is queue' -l from -x -d 'messages of this sender, or this domain; <> is reports'
complete -c mailwren -n '__mailwren_is queue ""' -a list -d 'age, size, sender, recipients, next try, last reply'
complete -c mailwren -n '__mailwren_is queue ""' -a show -d 'the envelope, what became of it, the message'
complete -c mailwren -n '__mailwren_is queue ""' -a retry -d 'try it now, whatever the schedule says'
complete -c mailwren -n '__mailwren_is queue ""' -a hold -d 'do not try it until it is released; held time is no age'
complete -c mailwren -n '__mailwren_is queue ""' -a release -d 'hold it no longer, and try it now'
complete -c mailwren -n '__mailwren_is queue ""' -a delete -d 'remove it and tell nobody'
complete -c mailwren -n '__mailwren_is queue ""' -a bounce -d 'give it up: its sender gets a report'
complete -c mailwren -n '__mailwren_is status' -l json -d 'as an object, for programs'
complete -c mailwren -n '__mailwren_is trace' -l json -d 'as an object, for programs'
