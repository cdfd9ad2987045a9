// Package edit is the verb edit: it opens the entries of a Secret in an editor.
package edit

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/entrytext"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/internal/privatedir"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Options are the options of edit.
type Options struct {
	*cli.Factory
	file    string
	tempDir string
	name    string
	settle  options.Settle

	includeManaged bool
}

// NewCommand returns the command edit.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "edit NAME | edit -f FILE [NAME]",
		Short: "Edit the decrypted entries of a Secret, and encrypt the changes",
		Long: `Open the decrypted entries of a ciphertext Secret in an editor, and write those that
were changed, added or removed. All others keep their ciphertext, byte for byte; if
nothing was changed, nothing is written. With -f the Secret is in a manifest, and
everything else in the file stays as it is; NAME is needed only if there are several.

The Vault token must be allowed to decrypt, besides what encrypt needs, which authors
are not by default. To replace a value without seeing it, use encrypt.

A Secret of the cluster that somebody else writes, such as Argo CD, Flux or Helm, is
refused: they would revert the change, and the new value would be lost. Edit the manifest
instead, with -f. --include-managed edits the Secret anyway.

The editor is KUBE_EDITOR or EDITOR, or vi. Editors with a window must wait until it is
closed, for example KUBE_EDITOR='code --wait'. Entries are YAML: a text of several lines
is a block after |, bytes that are not text are base64 with !!binary. JSON on one line
is shown with a line for each field, and stored on one line again, with the spaces that
it had; an entry that you do not change keeps every byte.

If the text is invalid or cannot be written, the editor opens again with the reason on
top, and also if somebody else has changed the same entry, with their value beside
yours, and the program that wrote it. Without a terminal to ask on, that is an error:
nothing is written and the edit is lost.

The plaintext is in memory and in one file: in a directory with mode 0700, on a file
system in memory (XDG_RUNTIME_DIR or /dev/shm), which is overwritten and removed at
the end, also on errors and signals. After kill -9 the file remains until the machine
restarts. TMPDIR of the editor is that directory, but an editor may keep other files:
for vim, set noswapfile, nobackup, noundofile and viminfo= for /dev/shm/*. The system
may write memory to swap space: encrypt it or turn it off.`,
		Example: `  secretmanager edit matrix-secrets -n demo

  # in a manifest
  secretmanager edit -f matrix-secrets.yaml

  # with vim, without the files that it keeps
  EDITOR='vim -n -i NONE' secretmanager edit matrix-secrets -n demo`,
		Args: cobra.MaximumNArgs(1),
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	f.StringVarP(&o.file, "filename", "f", "", "manifest `file` with the Secret, instead of the cluster")
	o.settle.AddFlags(f, p.Getenv)
	cli.IncludeManagedFlag(f, &o.includeManaged)
	f.StringVar(&o.tempDir, "temp-dir", "", "parent `directory` of the one for the plaintext, even if it is not in memory")
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(_ *cobra.Command, args []string) error {
	o.name = strings.Join(args, "")
	return nil
}

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.If(o.name == "" && o.file == "", "name the Secret, or a manifest with -f")
	p.Add(o.settle.Validate()...)
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	vault, err := o.EncryptingVaultSession()
	if err != nil {
		return err
	}
	target, err := o.target(vault, o.name)
	if err != nil {
		return err
	}
	e := &session{Options: o, vault: vault, target: target, ask: cli.IsTerminal(o.In) && cli.IsTerminal(o.ErrOut)}
	if err := e.load(ctx); err != nil {
		return err
	}
	if err := target.check(e.loaded); err != nil { // before anybody types a value that would be lost
		return err
	}
	if hint := target.managedBy(e.loaded).Hint; hint != "" {
		display.Fprintf(o.ErrOut, "note: %s\n", hint)
	}
	// From here on there is plaintext in a file: no signal and no closed pipe may end the process before it is wiped.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	defer stop()
	if err := e.inPrivateDir(ctx); err != nil {
		return err
	}
	return e.report()
}

func (o *Options) target(vault *cli.EncryptingSession, name string) (target, error) {
	if o.file != "" {
		return &inManifest{Factory: o.Factory, vault: vault, path: o.file, name: name}, nil
	}
	namespace, err := o.ClusterNamespace()
	if err != nil {
		return nil, err
	}
	kube, err := o.KubeClient()
	if err != nil {
		return nil, err
	}
	return &inCluster{kube: kube, client: secretmanager.New(vault, kube), namespace: namespace, name: name,
		options: secretmanager.Options{IncludeManaged: o.includeManaged}}, nil
}

// session is one edit, during which the editor may open several times.
type session struct {
	*Options
	vault  *cli.EncryptingSession
	target target
	ask    bool // there is a terminal to ask on

	loaded *corev1.Secret    // as it was loaded last
	plain  map[string][]byte // its plaintexts
	change secretmanager.Spec
	stored *corev1.Secret // nil until it is stored
	edited time.Duration  // how long the editor was open last
}

// load reads the Secret and decrypts it.
func (e *session) load(ctx context.Context) error {
	secret, err := e.target.load(ctx)
	if err != nil {
		return err
	}
	plain, err := secretmanager.Decrypt(ctx, e.vault, secret)
	switch {
	case err == nil:
		e.loaded, e.plain = secret, plain
		return nil
	case errors.Is(err, transit.ErrDenied):
		return cli.WithHint(err, "edit needs the right to decrypt, which authors do not have by default: it is "+
			"in the policy of the app that vault-setup prints",
			"encrypt replaces values without showing them")
	case len(secret.Data) == 0:
		return cli.WithHint(err, "encrypt adds entries, to a manifest with --merge-into")
	case secret.Type != ciphertext.Type && secret.Labels[ciphertext.LabelTransitKey] == "":
		return cli.WithHint(err, "kubectl edit is for plaintext Secrets; encrypt --from-secret converts them")
	}
	return err
}

// inPrivateDir edits in a directory that is always wiped.
func (e *session) inPrivateDir(ctx context.Context) (err error) {
	var dir privatedir.Dir
	if e.tempDir != "" {
		if !privatedir.InMemory(e.tempDir) {
			display.Fprintf(e.ErrOut, "note: %s is not in memory: the plaintext is on a disk while it is edited, "+
				"where wiping may leave traces\n", e.tempDir)
		}
		dir, err = privatedir.NewIn(e.tempDir)
	} else {
		dir, err = privatedir.New(privatedir.MemoryDirs(e.Getenv))
	}
	if errors.Is(err, privatedir.ErrNotInMemory) {
		err = cli.WithHint(err, "set --temp-dir; if that is on a disk, so is the plaintext while it is edited, "+
			"and perhaps longer")
	}
	if err != nil {
		return err
	}
	defer e.AtExit(func() { _ = dir.Wipe() })()
	defer func() {
		if wipeErr := dir.Wipe(); wipeErr != nil {
			err = errors.Join(err, cli.WithHint(wipeErr, "check what remains in "+dir.Path))
		}
	}()
	return e.loop(ctx, editor{Factory: e.Factory, dir: dir})
}

// loop opens the editor until the change has been stored or the user gives up.
func (e *session) loop(ctx context.Context, with editor) error {
	shown, err := entrytext.Format(e.plain)
	if err != nil {
		return err
	}
	body := shown.Text
	var reason reopened // why the editor is open again
	for {
		head := e.head(reason)
		opened := time.Now()
		text, err := with.edit(ctx, head+body)
		e.edited = time.Since(opened)
		if err != nil {
			return err
		}
		text = withoutHead(text)
		unchanged := text == body // since the editor opened
		entries, problems := shown.Parse(text)
		if len(problems) > 0 {
			err := invalidText(problems, strings.Count(head, "\n"))
			if !e.ask || unchanged {
				return err
			}
			reason, body = reopened{problems: problems}, text
			continue
		}
		if len(entries) == 0 {
			return errors.New("nothing was written: the saved text has no entries")
		}
		e.change = diff(e.plain, entries)
		if len(e.change.Entries)+len(e.change.Remove) == 0 {
			return nil
		}
		if unchanged && reason.err != nil && !e.confirm(ctx) {
			return reason.err
		}
		err = e.store(ctx)
		if err == nil {
			return nil
		}
		if e.stored != nil || !e.ask || ctx.Err() != nil {
			return err
		}
		reason, body = reopened{err: err}, text
		if conflict := (*conflictError)(nil); errors.As(err, &conflict) {
			// Keep what others have changed in other entries.
			if shown, err = entrytext.Format(conflict.merged); err != nil {
				return err
			}
			body = shown.Text
		}
	}
}

// diff returns the change from old to new entries.
func diff(before, after map[string][]byte) secretmanager.Spec {
	change := secretmanager.Spec{Entries: map[string][]byte{}, AllowEmpty: true}
	for name, value := range after {
		if old, found := before[name]; !found || !bytes.Equal(old, value) {
			change.Entries[name] = value
		}
	}
	for _, name := range ciphertext.Entries(before) {
		if _, found := after[name]; !found {
			change.Remove = append(change.Remove, name)
		}
	}
	return change
}

// apply returns the entries after a change.
func apply(before map[string][]byte, change secretmanager.Spec) map[string][]byte {
	after := maps.Clone(before)
	maps.Copy(after, change.Entries)
	for _, name := range change.Remove {
		delete(after, name)
	}
	return after
}

// maxAttempts bounds the attempts at a write that keeps conflicting.
const maxAttempts = 5

// store writes the change, and merges it with changes of others. It fails if they have changed the
// same entries; a rotation changes none.
func (e *session) store(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		e.change.Settle = e.settle.Duration
		stored, err := e.target.store(ctx, e.loaded, e.change)
		if err == nil || !errors.Is(err, secretmanager.ErrChanged) || attempt == maxAttempts {
			if err == nil || errors.Is(err, secretmanager.ErrNotVerified) {
				e.stored = stored
			}
			return err
		}
		before := e.plain
		if err := e.load(ctx); err != nil {
			return display.Errorf("the Secret has changed: %w", err)
		}
		merged := apply(e.plain, e.change)
		var names []string
		for _, name := range ciphertext.Entries(apply(before, secretmanager.Spec{Entries: e.change.Entries})) {
			_, set := e.change.Entries[name]
			if (set || slices.Contains(e.change.Remove, name)) && !sameEntry(before, e.plain, name) &&
				!sameEntry(merged, e.plain, name) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			return &conflictError{names: names, others: changedOnly(before, e.plain, names), theirs: e.plain, merged: merged,
				secret: e.loaded}
		}
		e.change = diff(e.plain, merged)
		if len(e.change.Entries)+len(e.change.Remove) == 0 {
			return nil // others have made the same change
		}
	}
}

func sameEntry(a, b map[string][]byte, name string) bool {
	x, inA := a[name]
	y, inB := b[name]
	return inA == inB && bytes.Equal(x, y)
}

// confirm asks whether to write an unchanged text.
func (e *session) confirm(ctx context.Context) bool {
	answer, err := e.Ask("Write it anyway? [y/N] ")
	answer = strings.ToLower(answer)
	return err == nil && ctx.Err() == nil && (answer == "y" || answer == "yes")
}

// report reports the result.
func (e *session) report() error {
	if e.stored == nil {
		if e.edited < time.Second { // nobody reads and closes a file that quickly
			command := editorCommand(e.Getenv)
			if better := waiting(command); better != "" {
				display.Fprintf(e.ErrOut, "hint: %s ended at once, while its window may still be open: close the window, as "+
					"nothing that it saves is read, and set KUBE_EDITOR='%s'\n", strings.Fields(command)[0], better)
			} else {
				display.Fprintf(e.ErrOut, "hint: the editor ended at once: if its window is still open, close it, and make the "+
					"editor wait, for example KUBE_EDITOR='code --wait'\n")
			}
		}
		_, err := display.Fprintf(e.Out, "%s\n", e.target.describe("unchanged"))
		return err
	}
	if set := ciphertext.Entries(e.change.Entries); len(set) > 0 {
		text := e.stored.Data[set[0]]
		version, _ := ciphertext.Version(text)
		settings, err := ciphertext.SettingsOf(e.stored)
		if err != nil {
			return err
		}
		display.Fprintf(e.ErrOut, "encrypted %s with %s, version %d: %s\n", cli.Plural(len(set), "entry", "entries"),
			settings.Key, version, strings.Join(set, ", "))
		e.vault.NoteUnsettled(e.ErrOut, settings.Key)
	}
	if removed := e.change.Remove; len(removed) > 0 {
		display.Fprintf(e.ErrOut, "removed %s: %s\n", cli.Plural(len(removed), "entry", "entries"),
			strings.Join(removed, ", "))
	}
	_, err := display.Fprintf(e.Out, "%s\n", e.target.describe("edited"))
	return err
}
