# Bash completion for veneer.
_veneer() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    if [ "$COMP_CWORD" = 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'run exec list stop memory image delete disk share engines --log-level --help --version' -- "$word")
        return
    fi
    case ${COMP_WORDS[1]}:$before in
    run:--kernel | run:--initrd | run:--disk | run:--vsock) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    run:--share) mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
    run:--engine) mapfile -t COMPREPLY < <(compgen -W "auto translate,check $(veneer engines 2>/dev/null | sed -n 's/^[* ] \([a-z]*\) .*/\1/p')" -- "$word") ;;
    run:--virtio-rings) mapfile -t COMPREPLY < <(compgen -W 'split packed' -- "$word") ;;
    run:--cpu) mapfile -t COMPREPLY < <(compgen -W 'default host' -- "$word") ;;
    run:--console) mapfile -t COMPREPLY < <(compgen -W 'stdio none unix: file:' -- "$word") ;;
    run:--console-device) mapfile -t COMPREPLY < <(compgen -W 'serial virtio' -- "$word") ;;
    run:--balloon) mapfile -t COMPREPLY < <(compgen -W 'off' -- "$word") ;;
    run:run) mapfile -t COMPREPLY < <(compgen -W "--kernel --help $(veneer image list 2>/dev/null | sed '1d;s/ .*//')" -- "$word") ;;
    run:--cpus | run:--memory | run:--code-cache | run:--append | run:--port | run:--debug-exit | run:--name | *:--env | *:--cwd | *:--user | *:--wait | *:--timeout) COMPREPLY=() ;;
    run:*) mapfile -t COMPREPLY < <(compgen -W '--kernel --initrd --append --cpus --memory --code-cache --engine --cpu --console --debug-exit --name --disk --virtio-rings --share --console-device --port --vsock --balloon --stats --detach --interactive --terminal --env --cwd --user --wait --help' -- "$word") ;;
    image:image) mapfile -t COMPREPLY < <(compgen -W 'build list import export delete' -- "$word") ;;
    image:build) mapfile -t COMPREPLY < <(compgen -W 'debian' -- "$word") ;;
    image:import) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    image:export | image:delete) mapfile -t COMPREPLY < <(compgen -W "$(veneer image list 2>/dev/null | sed '1d;s/ .*//')" -- "$word") ;;
    image:--format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$word") ;;
    image:--disk-format) mapfile -t COMPREPLY < <(compgen -W 'raw qcow2' -- "$word") ;;
    image:*) mapfile -t COMPREPLY < <(compgen -W '--suite --packages --size --name --mirror --format --disk-format --help' -f -- "$word") ;;
    delete:*) mapfile -t COMPREPLY < <(compgen -W '--help' -- "$word") ;;
    list:--format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$word") ;;
    memory:--format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$word") ;;
    memory:--balloon) COMPREPLY=() ;;
    exec:* | stop:* | memory:*)
        if [ "${word:0:1}" != - ]; then
            mapfile -t COMPREPLY < <(compgen -W "$(veneer list 2>/dev/null | sed '1d; s/ .*//')" -- "$word")
            return
        fi ;;&
    exec:*) mapfile -t COMPREPLY < <(compgen -W '--interactive --terminal --env --cwd --user --wait --help' -- "$word") ;;
    list:*) mapfile -t COMPREPLY < <(compgen -W '--format --help' -- "$word") ;;
    memory:*) mapfile -t COMPREPLY < <(compgen -W '--balloon --format --help' -- "$word") ;;
    stop:*) mapfile -t COMPREPLY < <(compgen -W '--force --timeout --help' -- "$word") ;;
    disk:disk) mapfile -t COMPREPLY < <(compgen -W 'create info resize attach detach convert' -- "$word") ;;
    disk:--disk-format | disk:--backing-format | disk:--to) mapfile -t COMPREPLY < <(compgen -W 'raw qcow2' -- "$word") ;;
    disk:--format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$word") ;;
    disk:*) mapfile -t COMPREPLY < <(compgen -W '--format --disk-format --to --backing --backing-format --cluster-size --id --machine --timeout --help' -f -- "$word") ;;
    share:share) mapfile -t COMPREPLY < <(compgen -W 'attach detach' -- "$word") ;;
    share:*) mapfile -t COMPREPLY < <(compgen -W '--timeout --help' -d -- "$word") ;;
    engines:*) mapfile -t COMPREPLY < <(compgen -W '--help' -- "$word") ;;
    esac
}
complete -F _veneer veneer
