package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/kubernetes"
)

type status struct {
	*program
	all      bool
	selector string
	output   string
	retired  bool
}

func newStatus(p *program) *cobra.Command {
	o := &status{program: p}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what every ciphertext Secret is encrypted with",
		Long: `Show the ciphertext Secrets with their key, the oldest and the newest key version
in use, and what Vault says of the key: its newest version, and the oldest that
still decrypts. STATE is

  current  every entry is at the newest version of the key
  behind   some entry is not; the rotator, or rewrap, will bring it there
  broken   some entry does not open: retired, malformed or made by another Vault
  unknown  Vault did not tell, for instance because there is no token

What is broken is said on standard error. Without rights in Vault the rest works.

With --if-retired it shows instead what would break if every key version but the
newest were retired now: each entry below it, and which GitOps tool keeps it there.
All namespaces are looked at, unless -n names one. The exit code is 3 if something
would break, and 1 if that cannot be told of all. Ciphertext outside of the cluster,
in Git or in backups, is not seen: secretmanager rewrap --check looks at files.`,

		Example: `  secretmanager status -A
  secretmanager status -n demo -l app=matrix -o json
  secretmanager status --if-retired`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "the Secrets of all namespaces")
	f.StringVarP(&o.selector, "selector", "l", "", "label selector that they must match")
	f.BoolVar(&o.retired, "if-retired", false, "what would break if old key versions were retired now")
	f.StringVarP(&o.output, "output", "o", "", "wide, json or name; with --if-retired only json")
	return c
}

func (o *status) run(ctx context.Context) error {
	formats := []string{"wide", "json", "name"}
	if o.retired {
		formats = []string{"json"}
	}
	if err := checkOutput(o.output, formats...); err != nil {
		return err
	}
	if _, err := labels.Parse(o.selector); err != nil {
		return usagef("-l %q: %w", o.selector, err)
	}
	namespace := ""
	switch {
	case o.all:
	case !o.retired:
		var err error
		if namespace, err = o.clusterNamespace(); err != nil {
			return err
		}
	case *o.kube.Namespace != "":
		namespace = *o.kube.Namespace
		fmt.Fprintf(o.ErrOut, "note: only namespace %s is looked at, and a key may be in use in others\n", namespace)
	}
	kube, err := o.clientset()
	if err != nil {
		return err
	}
	rows, err := listStatus(ctx, kube, namespace, o.selector)
	if err != nil {
		return err
	}
	if o.output != "name" {
		o.readKeys(ctx, rows)
	}
	if o.retired {
		return o.showRetirement(rows)
	}
	switch o.output {
	case "json":
		encoder := json.NewEncoder(o.Out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(map[string]any{"secrets": rows})
	case "name":
		for _, r := range rows {
			fmt.Fprintf(o.Out, "secret/%s\n", r.Name)
		}
		return nil
	}
	return o.table(rows)
}

// readKeys asks Vault about the keys and judges the rows by its answers.
func (o *status) readKeys(ctx context.Context, rows []*statusRow) {
	session, err := o.vault()
	if err != nil && len(rows) > 0 {
		fmt.Fprintf(o.ErrOut, "note: nothing is known from Vault: %v\n", err)
	}
	type answer struct {
		info transit.KeyInfo
		err  error
	}
	answers := map[transit.Key]answer{}
	gone := err != nil // Vault as a whole
	for _, r := range rows {
		key := transit.Key{Mount: r.Mount, Name: r.Key}
		if gone || r.Key == "" {
			r.judge(nil)
			continue
		}
		a, asked := answers[key]
		if !asked {
			a.info, a.err = session.Key(ctx, key)
			answers[key] = a
			if a.err != nil {
				fmt.Fprintf(o.ErrOut, "note: %v\n", a.err)
			}
			// Nobody waits for the same silence once per key.
			gone = errors.Is(a.err, transit.ErrUnreachable) || errors.Is(a.err, transit.ErrTimeout) || errors.Is(a.err, transit.ErrSealed) || errors.Is(a.err, transit.ErrInvalidToken)
		}
		switch {
		case errors.Is(a.err, transit.ErrNotFound):
			r.problem("", "key %s is not there", key)
			r.judge(nil)
		case a.err != nil:
			r.judge(nil)
		default:
			r.judge(&a.info)
		}
	}
}

func (o *status) table(rows []*statusRow) error {
	if len(rows) == 0 {
		fmt.Fprintln(o.ErrOut, "no ciphertext Secrets found")
		return nil
	}
	table := printers.GetNewTabWriter(o.Out)
	columns := func(namespace, mount, managedBy string, rest ...string) {
		if o.all {
			rest = append([]string{namespace}, rest...)
		}
		if o.output == "wide" {
			rest = append(rest, mount, managedBy)
		}
		fmt.Fprintln(table, strings.Join(rest, "\t"))
	}
	columns("NAMESPACE", "MOUNT", "MANAGED-BY", "NAME", "KEY", "ENTRIES", "OLDEST", "NEWEST", "LATEST", "MIN-DECRYPTION", "SCOPE", "STATE")
	for _, r := range rows {
		columns(r.Namespace, r.Mount, r.ManagedBy, r.Name, orUnknown(r.Key), fmt.Sprint(len(r.Entries)), number(r.Oldest), number(r.Newest),
			number(r.Latest), number(r.MinDecryption), orUnknown(r.Scope), string(r.State))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		o.sayBroken(r)
	}
	return nil
}

func (o *status) sayBroken(r *statusRow) {
	for _, problem := range r.problems() {
		fmt.Fprintf(o.ErrOut, "broken: %s/%s: %s\n", r.Namespace, r.Name, problem)
	}
}

func number(n int) string {
	if n == 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

func orUnknown(s string) string {
	if s == "" {
		return "?"
	}
	return s
}

// listStatus lists the Secrets that are ciphertext by label or by type: two
// lists, as a server cannot select by either.
func listStatus(ctx context.Context, kube kubernetes.Interface, namespace, selector string) ([]*statusRow, error) {
	var rows []*statusRow
	withLabel, withType := metav1.ListOptions{LabelSelector: ciphertext.LabelTransitKey}, metav1.ListOptions{LabelSelector: "!" + ciphertext.LabelTransitKey}
	withType.FieldSelector = "type=" + string(ciphertext.Type)
	for _, options := range []metav1.ListOptions{withLabel, withType} {
		if selector != "" {
			options.LabelSelector += "," + selector
		}
		if err := eachSecret(ctx, kube, namespace, options, func(s *corev1.Secret) { rows = append(rows, rowOf(s)) }); err != nil {
			where := "namespace " + namespace
			if namespace == "" {
				where = "all namespaces"
			}
			return nil, fmt.Errorf("listing Secrets in %s: %w", where, err)
		}
	}
	sortRows(rows)
	return rows, nil
}
