# The table of docs/CATALOGUE.md, from what "ops generators list" and "ops generators check" print:
#   ops generators list --json >list.json
#   ops generators check --json >check.json
#   jq -rn --slurpfile list list.json --slurpfile check check.json -f docs/catalogue.jq
def n(d): . * d | round / d | tostring;
def mb: . / 1e6 | round | tostring;
def seeds: if .same_seed == null then "?" elif .same_seed | not then "differs" elif .times then "but times" else "same" end;
def prefix: if .prefix == null then "?" elif .prefix then "stable" else "varies" end;
def cost: if . then "\(.start_cpu | n(100)), \(.sample_cpu | n(100)) | \(.peak_rss | mb) | \(.sample_bytes / 1e3 | round)" else "- | - | -" end;
def notes: [.findings[] | select(.property != "same_seed" or .level != "notes") | .text] | join("; ")
  | gsub("it draws with fonts of the machine: "; "fonts ") | gsub("fonts that it looks for are not here: "; "fonts not there ")
  | gsub("\\|"; "\\|") | if . == "" then "-" else . end;
($check | flatten | map({(.generator): .}) | add // {}) as $found |
"| generator | ability | domain | licence | puzzles | verdict | checked | same seed | prefix | start, sample | memory | size | to know |",
"|---|---|---|---|---|---|---|---|---|---|---|---|---|",
($list | flatten[] | $found[.name] as $c |
  "| \(.name) | \(.category // "-") | \(.domain // "-") | \(.licence // "none") | \(.pool // "-") | " +
  if $c then "\($c.verdict) | \($c.cost.measured // "-" | .[:10]) | \($c | seeds) | \($c | prefix) | \($c.cost | cost) | \($c | notes) |"
  else "not run | - | - | - | - | - | - | \(.problem // "-") |" end)
