"""The lock on a phone itself: several computers that reach one phone, over the network say, take turns on it.

A phone has no Python and not always a program that locks, so the lock is a folder, which is made by one only. Who has it says
every few seconds that he lives; where that stops, the next one takes it.
"""

SILENCE = 30  # looks, one a second, after which a holder that gives no sign of life has lost it

# Arguments: the folder, the holder's name, and `SILENCE`. Does what `latency.holder` does: prints "waiting NAME" at most once,
# then "held", and gives it back when its input ends. A line of input is a sign of life. Who finds that he has lost it ends.
HOLD = """
lock=$1 who=$2 silence=$3 me="$$ $(date +%s)" beats=0 seen= quiet=0 told=
mine() { owner=; { read -r owner < "$lock/owner"; } 2>/dev/null; [ "$owner" = "$me" ]; }
trap 'if mine; then rm -rf "$lock"; fi' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "${lock%/*}" || exit 1
until mkdir "$lock" 2>/dev/null; do
    [ -d "$lock" ] || { echo "$lock cannot be made" >&2; exit 1; }
    now=$(cat "$lock/owner" "$lock/beat" 2>/dev/null)
    if [ "$now" = "$seen" ]; then quiet=$((quiet + 1)); else seen=$now quiet=0; fi
    if [ -z "$told" ]; then
        told=$(cat "$lock/who" 2>/dev/null)
        [ -n "$told" ] || [ $quiet -lt 2 ] || told="another computer"
        [ -z "$told" ] || echo "waiting $told"
    fi
    if [ $quiet -ge "$silence" ]; then rm -rf "$lock"; quiet=0; else sleep 1; fi
done
echo "$me" > "$lock/owner"
echo "$who, since $(date +%H:%M)" > "$lock/who"
echo held
while read -r beat; do
    mine || exit 1
    beats=$((beats + 1))
    echo $beats > "$lock/beat"
done
"""


def hold_command(folder: str, who: str, *, silence: int = SILENCE) -> list[str]:
    """The command there that holds the lock of a phone.

    Args:
        folder: of pocketnas on the phone.
        who: names the holder.
        silence: seconds without a sign of life after which a holder has lost it.
    """
    return ["sh", "-c", HOLD, "sh", f"{folder}/pocketnas.lock", who, str(silence)]
