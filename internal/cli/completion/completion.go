// Package completion prints the completion scripts of shells, and completes values from the
// cluster and Vault.
package completion

import (
	"cmp"
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
	"github.com/secretmanager-io/secretmanager/transit"
)

// timeout bounds the wait of a user who has pressed Tab.
const timeout = 2 * time.Second

// pageSize bounds the number of candidates.
const pageSize = 500

var shells = []string{"bash", "zsh", "fish", "powershell"}

// NewCommand returns the command completion.
func NewCommand(p *cli.Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "completion " + strings.Join(shells, "|"),
		Short: "Print the script that completes command lines in a shell",
		Long: `Print the script that makes a shell complete this program's commands and flags,
and from the cluster and Vault: namespaces, ciphertext Secrets, entries, pods and their
workloads, classes, service accounts, contexts and transit keys. Values that are not read within 2 seconds are not
offered.

  bash        source <(secretmanager completion bash), in ~/.bashrc
  zsh         source <(secretmanager completion zsh), in ~/.zshrc after compinit
  fish        secretmanager completion fish > ~/.config/fish/completions/secretmanager.fish
  powershell  secretmanager completion powershell | Out-String | Invoke-Expression

As a kubectl plugin it is completed by kubectl's own script, which runs the program
kubectl_complete-secretmanager. Put it on the PATH, executable, as

  #!/bin/sh
  exec kubectl secretmanager __complete "$@"`,
		Example: `  secretmanager completion bash > secretmanager.bash
  secretmanager completion fish > secretmanager.fish`,
		Args:                  cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs:             shells,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(p.Out, true)
			case "zsh":
				return root.GenZshCompletion(p.Out)
			case "fish":
				return root.GenFishCompletion(p.Out, true)
			default:
				return root.GenPowerShellCompletionWithDesc(p.Out)
			}
		},
	}
}

// completer completes values from the cluster and Vault.
type completer struct{ *cli.Factory }

// Register registers completions of flags and arguments. Flags are known by their
// names, which mean the same in all verbs, and arguments by the words of the usage line.
func Register(f *cli.Factory, root *cobra.Command) error {
	p := completer{f}
	flags := map[string]cobra.CompletionFunc{
		"namespace":   p.completeNamespaces,
		"context":     p.completeContexts,
		"cluster":     cobra.NoFileCompletions,
		"user":        cobra.NoFileCompletions,
		"selector":    cobra.NoFileCompletions,
		"vault-addr":  cobra.NoFileCompletions,
		"transit-key": p.completeKeys,
		"scope": cobra.FixedCompletions([]string{string(ciphertext.Strict), string(ciphertext.Namespace),
			string(ciphertext.Cluster), string(ciphertext.None)}, cobra.ShellCompDirectiveNoFileComp),
		"from-literal": p.completeEntries(cobra.ShellCompDirectiveNoFileComp),
		"from-file":    p.completeEntries(cobra.ShellCompDirectiveDefault),
		"service-account": p.completeNames(
			schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, ""),
		"class": p.completeNames(classesResource, ""),
	}
	for _, c := range append(root.Commands(), root) {
		for _, name := range slices.Sorted(maps.Keys(flags)) {
			if name == "class" && c.Name() != "doctor" {
				continue // a file
			}
			if c.LocalNonPersistentFlags().Lookup(name) == nil && (c != root || c.PersistentFlags().Lookup(name) == nil) {
				continue
			}
			if err := c.RegisterFlagCompletionFunc(name, flags[name]); err != nil {
				return err
			}
		}
		switch {
		case c.ValidArgs != nil || c.ValidArgsFunction != nil || strings.Contains(c.Use, "FILE...") ||
			strings.Contains(c.Use, "DIR"):
		case strings.HasPrefix(c.Use, c.Name()+" NAME"):
			c.ValidArgsFunction = p.completeSecrets(strings.Contains(c.Use, "NAME..."))
		case strings.HasPrefix(c.Use, c.Name()+" [NAME..."):
			c.ValidArgsFunction = p.completeSecrets(true)
		case strings.HasPrefix(c.Use, c.Name()+" [POD"):
			c.ValidArgsFunction = p.completePods
		case strings.HasPrefix(c.Use, c.Name()+" KEY"):
			c.ValidArgsFunction = p.completeKeys
		default:
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	return nil
}

// metadata returns a client that reads only the metadata of objects.
func (p completer) metadata() (metadata.Interface, error) {
	config, err := p.RESTConfig()
	if err != nil {
		return nil, err
	}
	config.WarningHandler = rest.NoWarnings{}
	return metadata.NewForConfig(metadata.ConfigFor(config))
}

var (
	classesResource = schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: "v1",
		Resource: "secretproviderclasses"}
	secretsResource    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	namespacesResource = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
)

// offer returns the candidates that begin with what the user has typed. Errors are not reported, as
// the shell would show them in the command line.
func offer(all []string, prefix string) ([]string, cobra.ShellCompDirective) {
	all = slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, prefix) || display.Line(s) != s })
	slices.Sort(all)
	return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
}

func completionContext(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(cmd.Context(), timeout)
}

func (p completer) completeNamespaces(cmd *cobra.Command, _ []string,
	prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := completionContext(cmd)
	defer cancel()
	client, err := p.metadata()
	if err != nil {
		return offer(nil, prefix)
	}
	list, err := client.Resource(namespacesResource).List(ctx, metav1.ListOptions{Limit: pageSize})
	if err != nil {
		return offer(nil, prefix)
	}
	var names []string
	// -n may be a list: the last namespace is completed.
	before := prefix[:strings.LastIndex(prefix, ",")+1]
	for _, n := range list.Items {
		if !slices.Contains(strings.Split(before, ","), n.Name) {
			names = append(names, before+n.Name)
		}
	}
	return offer(names, prefix)
}

// completeNames offers the names of objects of the namespace, with a prefix before each.
func (p completer) completeNames(resource schema.GroupVersionResource, before string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := completionContext(cmd)
		defer cancel()
		return offer(p.names(ctx, resource, before), prefix)
	}
}

// names lists the names of objects of the namespace.
func (p completer) names(ctx context.Context, resource schema.GroupVersionResource, before string) (names []string) {
	namespace, err := p.ClusterNamespace()
	if err != nil {
		return nil
	}
	client, err := p.metadata()
	if err != nil {
		return nil
	}
	list, err := client.Resource(resource).Namespace(namespace).List(ctx, metav1.ListOptions{Limit: pageSize})
	if err != nil {
		return nil
	}
	for _, o := range list.Items {
		names = append(names, before+o.Name)
	}
	return names
}

// workloads are the resources whose pods doctor checks, by what is before the name.
var workloads = map[string]schema.GroupVersionResource{
	"":        {Version: "v1", Resource: "pods"},
	"deploy/": {Group: "apps", Version: "v1", Resource: "deployments"},
	"sts/":    {Group: "apps", Version: "v1", Resource: "statefulsets"},
	"ds/":     {Group: "apps", Version: "v1", Resource: "daemonsets"},
}

// completePods offers pods, and workloads such as deploy/NAME.
func (p completer) completePods(cmd *cobra.Command, args []string,
	prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return offer(nil, prefix)
	}
	ctx, cancel := completionContext(cmd)
	defer cancel()
	var names []string
	for before, resource := range workloads {
		names = append(names, p.names(ctx, resource, before)...)
	}
	return offer(names, prefix)
}

func (p completer) completeContexts(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	raw, err := p.KubeFlags.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return offer(nil, prefix)
	}
	return offer(slices.Collect(maps.Keys(raw.Contexts)), prefix)
}

// completeSecrets offers the ciphertext Secrets of the namespace, except those that are named already.
func (p completer) completeSecrets(several bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := completionContext(cmd)
		defer cancel()
		namespace, err := p.ClusterNamespace()
		if err != nil || len(args) > 0 && !several {
			return offer(nil, prefix)
		}
		var names []string
		for _, selection := range secretlist.Ciphertext("") {
			for _, s := range p.listMetadata(ctx, namespace, selection.ListOptions()) {
				if !slices.Contains(args, s.Name) {
					names = append(names, s.Name)
				}
			}
		}
		return offer(names, prefix)
	}
}

func (p completer) listMetadata(ctx context.Context, namespace string,
	options metav1.ListOptions) []metav1.PartialObjectMetadata {
	client, err := p.metadata()
	if err != nil {
		return nil
	}
	options.Limit = pageSize
	list, err := client.Resource(secretsResource).Namespace(namespace).List(ctx, options)
	if err != nil {
		return nil
	}
	return list.Items
}

// completeKeys offers the keys of Secrets, in the namespace of -n or else in all that the user can
// list, and the keys that Vault lists.
func (p completer) completeKeys(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := completionContext(cmd)
	defer cancel()
	inVault := make(chan []string, 1)
	go func() { inVault <- p.listKeys(ctx, cmd) }()
	withKey := metav1.ListOptions{LabelSelector: ciphertext.LabelTransitKey}
	found := p.listMetadata(ctx, *p.KubeFlags.Namespace, withKey)
	if found == nil && *p.KubeFlags.Namespace == "" {
		if namespace, err := p.ClusterNamespace(); err == nil {
			found = p.listMetadata(ctx, namespace, withKey)
		}
	}
	var keys []string
	for _, s := range found {
		keys = append(keys, s.Labels[ciphertext.LabelTransitKey])
	}
	return offer(append(keys, <-inVault...), prefix)
}

func (p completer) listKeys(ctx context.Context, cmd *cobra.Command) (keys []string) {
	p.Audit = transit.Audit{RunID: rand.Text(), Verb: "completion"} // no verb runs
	vault, err := p.VaultAPI(ctx)
	if err != nil {
		return nil
	}
	mount := ""
	if f := cmd.Flags().Lookup("transit-mount"); f != nil {
		mount = f.Value.String()
	}
	response, err := vault.Logical().ListWithContext(ctx, cmp.Or(mount, ciphertext.DefaultTransitMount)+"/keys")
	if err != nil || response == nil {
		return nil
	}
	list, _ := response.Data["keys"].([]any)
	for _, k := range list {
		if name, ok := k.(string); ok {
			keys = append(keys, name)
		}
	}
	return keys
}

// completeEntries offers the entries of the named Secret as ENTRY=. The shell completes the rest.
func (p completer) completeEntries(value cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if strings.Contains(prefix, "=") || len(args) == 0 {
			return nil, value
		}
		ctx, cancel := completionContext(cmd)
		defer cancel()
		namespace, err := p.ClusterNamespace()
		if err != nil {
			return nil, value
		}
		kube, err := p.KubeClient()
		if err != nil {
			return nil, value
		}
		secret, err := kube.CoreV1().Secrets(namespace).Get(ctx, args[0], metav1.GetOptions{})
		if err != nil {
			return nil, value
		}
		var entries []string
		for _, name := range ciphertext.Entries(secret.Data) {
			entries = append(entries, name+"=")
		}
		entries, _ = offer(entries, prefix)
		return entries, value | cobra.ShellCompDirectiveNoSpace
	}
}
