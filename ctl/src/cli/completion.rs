//! Scripts that complete commands and flags in a shell, made from the same tables as the help.

use std::fmt::Write;

use super::{
    bad_arguments,
    spec::{Command, Flag, GLOBAL_FLAGS, ROOT},
};
use crate::{Exit, Failure, go_syntax::quote};

/// The script for the shell that `arguments` name.
///
/// # Errors
///
/// No shell, more than one, or an unknown one.
pub(super) fn script(arguments: &[Vec<u8>]) -> Result<String, Failure> {
    let [shell] = arguments else {
        return Err(bad_arguments(
            "completion command needs a shell: bash, zsh or fish",
        ));
    };
    let template = match shell.as_slice() {
        b"bash" => BASH,
        b"zsh" => ZSH,
        b"fish" => FISH,
        _ => {
            let text = format!("no completion for {}: bash, zsh or fish", quote(shell));
            return Err(Failure::new(Exit::Error, text));
        }
    };
    let mut places = Vec::new();
    collect(String::new(), &ROOT, &[], &mut places);
    let paths: Vec<&str> = places[1..]
        .iter()
        .map(|place| place.path.as_str())
        .collect();
    let mut cases = String::new();
    for Place { path, words } in &places {
        // Writing into a String cannot fail.
        let _ = write!(cases, "{}'{path}'", template.case[0]);
        let _ = writeln!(
            cases,
            "{}{}{}",
            template.case[1],
            words.join(" "),
            template.case[2]
        );
    }
    Ok(template
        .text
        .replace("@PATHS@", &paths.join(template.between_paths))
        .replace("@CASES@\n", &cases))
}

/// What can follow at one place of the command line.
struct Place {
    /// `/lease/grant`; empty for the root.
    path: String,
    words: Vec<String>,
}

fn collect(
    path: String,
    command: &'static Command,
    above: &[&'static [Flag]],
    places: &mut Vec<Place>,
) {
    let mut flags = above.to_vec();
    flags.push(command.flags);
    let children = command.children.iter();
    let own = flags.iter().copied().flatten();
    let words = children.clone().map(|child| child.name.to_owned()).chain(
        own.chain(GLOBAL_FLAGS)
            .map(|flag| format!("--{}", flag.name)),
    );
    places.push(Place {
        words: words.collect(),
        path: path.clone(),
    });
    for child in children {
        collect(format!("{path}/{}", child.name), child, &flags, places);
    }
}

/// A script, and how a list of paths and a case are written in its language.
struct Template {
    text: &'static str,
    between_paths: &'static str,
    /// Before the path, between it and the words, and after these.
    case: [&'static str; 3],
}

const BASH: Template = Template {
    text: "\
_holdfastctl() {
    local at= words= word
    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do
        case \"$at/$word\" in
            @PATHS@) at=\"$at/$word\" ;;
        esac
    done
    case \"$at\" in
@CASES@
    esac
    COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))
}
complete -o default -F _holdfastctl holdfastctl
",
    between_paths: "|",
    case: ["        ", ") words='", "' ;;"],
};

const ZSH: Template = Template {
    text: "\
#compdef holdfastctl
_holdfastctl() {
    local at= word
    local -a found
    for word in \"${(@)words[2,CURRENT-1]}\"; do
        case \"$at/$word\" in
            @PATHS@) at=\"$at/$word\" ;;
        esac
    done
    case \"$at\" in
@CASES@
    esac
    compadd -- \"${found[@]}\" || _files
}
compdef _holdfastctl holdfastctl
",
    between_paths: "|",
    case: ["        ", ") found=(", ") ;;"],
};

const FISH: Template = Template {
    text: "\
function __holdfastctl_words
    set -l at ''
    set -l given (commandline -opc)
    for word in $given[2..-1]
        switch \"$at/$word\"
            case @PATHS@
                set at \"$at/$word\"
        end
    end
    switch \"$at\"
@CASES@
    end
end
complete -c holdfastctl -a '(__holdfastctl_words)'
",
    between_paths: " ",
    case: ["        case ", "\n            string split -- ' ' '", "'"],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_every_command() {
        for shell in ["bash", "zsh", "fish"] {
            let text = script(&[shell.into()]).unwrap();
            assert!(!text.contains('@') || shell != "fish", "{text}");
            for word in ["/user/grant-role", "/watch", "--no-password", "--endpoints"] {
                assert!(text.contains(word), "{word} for {shell}");
            }
        }
        assert_eq!(script(&[]).unwrap_err().exit(), Exit::BadArguments);
        assert_eq!(script(&[b"tcsh".to_vec()]).unwrap_err().exit(), Exit::Error);
    }
}
