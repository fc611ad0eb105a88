# bash completion for tessera: verbs and options come from the program's own help.
_tessera() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words
  case $previous in
    --model)
      words=$(tessera models --json 2>/dev/null | grep -o '"name":"[^"]*"' | cut -d'"' -f4)
      compopt -o default 2>/dev/null
      ;;
    --quantize) words="int8 int4" ;;
    --activations) words="lossless int8 fp8" ;;
    drain) words=$(tessera status --json 2>/dev/null | python3 -c 'import json, sys
print(*[w["name"] for w in json.load(sys.stdin)["workers"] if w["state"] != "lost"])' 2>/dev/null) ;;
    --dtype) words="auto float32 bfloat16" ;;
    --kv-dtype) words="auto float32 bfloat16 float16" ;;
    *)
      if [ "$COMP_CWORD" = 1 ]; then
        words=$(tessera --help 2>/dev/null | sed -n '/^Subcommands:/,$ s/^  \([a-z]*\) .*/\1/p')
      else
        words=$(tessera "${COMP_WORDS[1]}" --help 2>/dev/null | grep -o -- '--[a-z][a-z-]*')
      fi
      ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o bashdefault -F _tessera tessera
