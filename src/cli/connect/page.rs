//! The way of a link to a browser: by a file, as what stands in a command line is seen by every user of the machine, and
//! whoever goes to the link first has it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes of the folder's name that nobody can guess.
const NAME: usize = 16;

/// A page that leads to the link, in a folder that only this user can enter. It is gone when this is dropped.
#[derive(Debug)]
pub struct Page {
    folder: PathBuf,
    file: PathBuf,
}

impl Page {
    /// A page that leads there.
    ///
    /// # Errors
    /// If it cannot be written, or the system gives no randomness.
    pub fn to(link: &str) -> io::Result<Self> {
        let mut bytes = [0; NAME];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let name: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let folder = std::env::temp_dir().join(format!("postern-{name}"));
        // Fails where something is there already, also a link.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let page = Self { file: folder.join("connect.html"), folder };
        let link = escaped(link);
        let text = format!(
            "<!doctype html><meta charset=\"utf-8\"><meta name=\"referrer\" content=\"no-referrer\">\
             <meta http-equiv=\"refresh\" content=\"0;url={link}\"><title>Postern</title><a href=\"{link}\">Connect the account</a>\n"
        );
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&page.file)?.write_all(text.as_bytes())?;
        Ok(page)
    }

    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn escaped(text: &str) -> String {
    let mut all = String::new();
    for c in text.chars() {
        match c {
            '&' => all.push_str("&amp;"),
            '<' => all.push_str("&lt;"),
            '>' => all.push_str("&gt;"),
            '"' => all.push_str("&quot;"),
            '\'' => all.push_str("&#39;"),
            c => all.push(c),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_text_on_the_page_and_nothing_is_left_of_it() {
        let page = Page::to("https://gw.example/a?b=c&d=\"><script>").unwrap();
        let text = std::fs::read_to_string(page.file()).unwrap();
        assert!(text.contains("https://gw.example/a?b=c&amp;d=&quot;&gt;&lt;script&gt;") && !text.contains("<script"), "{text}");
        let folder = page.folder.clone();
        drop(page);
        assert!(!folder.exists());
    }
}
