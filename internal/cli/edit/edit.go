// Package edit is the verb edit: it opens the entries of a Secret in an editor.
package edit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/entrytext"
	"github.com/secretmanager-io/secretmanager/internal/privatedir"
	"github.com/secretmanager-io/secretmanager/transit"
	"github.com/spf13/cobra"

	corev1 "k8s.io/api/core/v1"
)

type Options struct {
	*cli.Factory
	file    string
	tempDir string
	name    string
}

func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "edit NAME | edit -f FILE [NAME]",
		Short: "Decrypt a Secret into your editor, and encrypt what was changed",
		Long: `Open the entries of a ciphertext Secret, decrypted, in an editor, and write those
that were changed, added or removed. All others keep their ciphertext, byte for
byte; if nothing was changed, nothing is written. With -f the Secret is one in a
manifest, and everything else in the file stays as it is too; NAME is needed only if
there are several.

It takes a Vault token that may decrypt besides what encrypt needs, which authors
may not by default. To replace a value without seeing it, use encrypt.

The editor is the one of KUBE_EDITOR or EDITOR, or else vi. Entries are YAML: a text
of several lines is a block below |, bytes that are no text are base64 with !!binary.
What cannot be read back, or written, is opened again with the reason on top, and so
is what somebody else changed meanwhile, with their value beside yours. Where there is
no terminal to ask on, that is an error: nothing is written and the edit is gone.

The plaintext is in memory and in one file: in a folder for you alone, on a file system
in memory (XDG_RUNTIME_DIR or /dev/shm), overwritten and removed at the end, on errors and
on signals too. Only after kill -9 it stays, until the machine is started anew. TMPDIR is that
folder for the editor, but what the editor keeps elsewhere is its own: for vim, set noswapfile,
nobackup, noundofile and viminfo= for /dev/shm/*. Memory may be written to swap space, unless that
is encrypted or off.`,
		Example: `  secretmanager edit matrix-secrets -n demo

  # in a manifest
  secretmanager edit -f matrix-secrets.yaml

  # with vim, without the files that it keeps
  EDITOR='vim -n -i NONE' secretmanager edit matrix-secrets -n demo`,
		Args: cobra.MaximumNArgs(1),
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	f.StringVarP(&o.file, "filename", "f", "", "manifest that the Secret is in, instead of the cluster")
	f.StringVar(&o.tempDir, "temp-dir", "", "where to make the folder for the plaintext, even if that is not in memory")
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
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	vault, err := o.VaultSession()
	if err != nil {
		return err
	}
	target, err := o.target(vault, o.name)
	if err != nil {
		return err
	}
	e := &editing{Options: o, vault: vault, target: target, ask: cli.IsTerminal(o.In) && cli.IsTerminal(o.ErrOut)}
	if err := e.load(ctx); err != nil {
		return err
	}
	if by := managedBy(target, e.was); by != "" {
		display.Fprintf(o.ErrOut, "note: the Secret is kept as it is in Git by %s, which will undo what is written here: edit -f edits the manifest\n", by)
	}
	// From here on there is plaintext outside of us: no signal may end us before it
	// is wiped, nor a reader of our messages that is gone.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	defer stop()
	if err := e.inFolder(ctx); err != nil {
		return err
	}
	return e.tell()
}

func (o *Options) target(vault *transit.Session, name string) (target, error) {
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
	return &inCluster{kube: kube, client: secretmanager.New(vault, kube), namespace: namespace, name: name}, nil
}

// editing is one edit, however often the editor is opened for it.
type editing struct {
	*Options
	vault  *transit.Session
	target target
	ask    bool // there is somebody to ask

	was    *corev1.Secret    // as it was loaded last
	plain  map[string][]byte // its plaintexts
	change secretmanager.Spec
	is     *corev1.Secret // as it was stored; nil if it was not
}

// load reads the Secret and decrypts it.
func (e *editing) load(ctx context.Context) error {
	is, err := e.target.load(ctx)
	if err != nil {
		return err
	}
	plain, err := secretmanager.Decrypt(ctx, e.vault, is)
	switch {
	case err == nil:
		e.was, e.plain = is, plain
		return nil
	case errors.Is(err, transit.ErrDenied):
		return cli.WithHint(err, "edit shows plaintext, and so takes the right to decrypt, which authors do not have by default: it is in the policy of the app that vault-setup prints",
			"encrypt replaces values without showing them")
	case len(is.Data) == 0:
		return cli.WithHint(err, "encrypt adds entries, to a manifest with --merge-into")
	case is.Type != ciphertext.Type && is.Labels[ciphertext.LabelTransitKey] == "":
		return cli.WithHint(err, "kubectl edit is for Secrets that hold plaintext; encrypt --from-secret turns them into ciphertext")
	}
	return err
}

// inFolder lets the user edit in a folder that is wiped whatever happens.
func (e *editing) inFolder(ctx context.Context) (err error) {
	var dir privatedir.Dir
	if e.tempDir != "" {
		if !privatedir.InMemory(e.tempDir) {
			display.Fprintf(e.ErrOut, "note: %s is not in memory: the plaintext goes to a disk while it is edited, where wiping may leave traces\n", e.tempDir)
		}
		dir, err = privatedir.NewIn(e.tempDir)
	} else {
		dir, err = privatedir.New(privatedir.MemoryDirs(e.Getenv))
	}
	if errors.Is(err, privatedir.ErrNotInMemory) {
		err = cli.WithHint(err, "--temp-dir names another; if that is on a disk, so is the plaintext while it is edited, and perhaps longer")
	}
	if err != nil {
		return err
	}
	defer func() {
		if wipeErr := dir.Wipe(); wipeErr != nil {
			err = errors.Join(err, cli.WithHint(wipeErr, "look for what is left in "+dir.Path))
		}
	}()
	return e.loop(ctx, editor{Factory: e.Factory, folder: dir})
}

// loop opens the editor until what is saved has been stored, or is given up.
func (e *editing) loop(ctx context.Context, with editor) error {
	body, err := entrytext.Format(e.plain)
	if err != nil {
		return err
	}
	var reason reopened // why it is open again
	for {
		head := e.head(reason)
		text, err := with.edit(ctx, head+body)
		if err != nil {
			return err
		}
		text = withoutHead(text)
		again := text == body // nothing was changed since
		entries, problems := entrytext.Parse(text)
		if len(problems) > 0 {
			err := unreadable(problems, strings.Count(head, "\n"))
			if !e.ask || again {
				return err
			}
			reason, body = reopened{problems: problems}, text
			continue
		}
		if len(entries) == 0 {
			return errors.New("nothing was written: what was saved has no entries")
		}
		e.change = diff(e.plain, entries)
		if len(e.change.Entries)+len(e.change.Remove) == 0 {
			return nil
		}
		if again && reason.err != nil && !e.confirm(ctx) {
			return reason.err
		}
		err = e.store(ctx)
		if err == nil {
			return nil
		}
		if e.is != nil || !e.ask || ctx.Err() != nil {
			return err
		}
		reason, body = reopened{err: err}, text
		if clash := (*clashError)(nil); errors.As(err, &clash) {
			// What others wrote elsewhere is not to be undone.
			if body, err = entrytext.Format(clash.merged); err != nil {
				return err
			}
		}
	}
}

// diff is what makes the entries that were those that are.
func diff(was, is map[string][]byte) secretmanager.Spec {
	change := secretmanager.Spec{Entries: map[string][]byte{}, AllowEmpty: true}
	for name, value := range is {
		if old, there := was[name]; !there || !bytes.Equal(old, value) {
			change.Entries[name] = value
		}
	}
	for _, name := range ciphertext.Entries(was) {
		if _, there := is[name]; !there {
			change.Remove = append(change.Remove, name)
		}
	}
	return change
}

// apply is the opposite.
func apply(was map[string][]byte, change secretmanager.Spec) map[string][]byte {
	is := maps.Clone(was)
	maps.Copy(is, change.Entries)
	for _, name := range change.Remove {
		delete(is, name)
	}
	return is
}

// clashError is that others changed the same entries.
type clashError struct {
	names  []string
	theirs map[string][]byte
	merged map[string][]byte // with ours where both changed something
}

func (e *clashError) Error() string {
	return display.Sprintf("nothing was written, as others changed the same meanwhile: %s", strings.Join(e.names, ", "))
}

func (e *clashError) Unwrap() error { return secretmanager.ErrChanged }

// maxStores is how often a change is tried that others keep getting in before.
const maxStores = 5

// store writes the change. What others did meanwhile is in its way only if it is
// about the same entries: a rotation is not.
func (e *editing) store(ctx context.Context) error {
	for try := 1; ; try++ {
		is, err := e.target.store(ctx, e.was, e.change)
		if err == nil || !errors.Is(err, secretmanager.ErrChanged) || try == maxStores {
			if err == nil || errors.Is(err, secretmanager.ErrNotVerified) {
				e.is = is
			}
			return err
		}
		before := e.plain
		if err := e.load(ctx); err != nil {
			return display.Errorf("it was changed meanwhile: %w", err)
		}
		merged := apply(e.plain, e.change)
		var names []string
		for _, name := range ciphertext.Entries(apply(before, secretmanager.Spec{Entries: e.change.Entries})) {
			_, set := e.change.Entries[name]
			if (set || slices.Contains(e.change.Remove, name)) && !sameEntry(before, e.plain, name) && !sameEntry(merged, e.plain, name) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			return &clashError{names, e.plain, merged}
		}
		e.change = diff(e.plain, merged)
		if len(e.change.Entries)+len(e.change.Remove) == 0 {
			return nil // others wrote the same
		}
	}
}

func sameEntry(a, b map[string][]byte, name string) bool {
	x, inA := a[name]
	y, inB := b[name]
	return inA == inB && bytes.Equal(x, y)
}

// confirm asks whether to write what was left as it is.
func (e *editing) confirm(ctx context.Context) bool {
	fmt.Fprint(e.ErrOut, "Write it all the same? [y/N] ")
	answered := make(chan string, 1)
	go func() {
		answer, _ := bufio.NewReader(e.In).ReadString('\n')
		answered <- strings.ToLower(strings.TrimSpace(answer))
	}()
	select {
	case answer := <-answered:
		return answer == "y" || answer == "yes"
	case <-ctx.Done():
		return false
	}
}

// tell says what was done.
func (e *editing) tell() error {
	if e.is == nil {
		_, err := display.Fprintf(e.Out, "%s\n", e.target.told("unchanged"))
		return err
	}
	if set := ciphertext.Entries(e.change.Entries); len(set) > 0 {
		text := e.is.Data[set[0]]
		version, _ := ciphertext.Version(text)
		settings, err := ciphertext.SettingsOf(e.is)
		if err != nil {
			return err
		}
		display.Fprintf(e.ErrOut, "encrypted %s with %s, version %d: %s\n", cli.Plural(len(set), "entry", "entries"),
			settings.Key, version, strings.Join(set, ", "))
	}
	if gone := e.change.Remove; len(gone) > 0 {
		display.Fprintf(e.ErrOut, "removed %s: %s\n", cli.Plural(len(gone), "entry", "entries"), strings.Join(gone, ", "))
	}
	_, err := display.Fprintf(e.Out, "%s\n", e.target.told("edited"))
	return err
}
