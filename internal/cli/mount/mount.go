// Package mount is the verb mount: it calls a provider as the CSI driver does.
package mount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/mountrequest"
)

// Options are the options of mount.
type Options struct {
	*cli.Factory
	class, secret        string
	socket, out          string
	token, kubeToken     string
	audience             string
	pod, podUID, account string
	attributes           map[string]string
	timeout              time.Duration
	output               string
}

// NewCommand returns the command mount.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "mount --class FILE --socket SOCKET --service-account-token FILE --out DIR",
		Short: "Mount a class as the CSI driver does, and write its files",
		Long: `Send a provider the request that kubelet and driver would send for a pod, and write
the files of the response with the driver's own code: to try or debug a class without
a pod and without a cluster.

With --secret the ciphertext is part of the request, as with nodePublishSecretRef;
without, the provider reads it from the cluster as the pod, which needs --kube-token.
Pod, service account and namespace default to those of the token. The provider refuses
a token that is bound to no pod or to another one. The content of the files is not
shown; they stay in DIR until you delete them.`,
		Example: `  secretmanager mount --class class.yaml --secret matrix-secrets.yaml \
      --socket /var/run/secrets-store-csi-providers/secretmanager.sock \
      --service-account-token token --out files

  # a token to try it with, as the kubelet gets it for the pod web-0
  kubectl create token matrix -n demo --audience vault \
      --bound-object-kind Pod --bound-object-name web-0 > token`,
		Args: cobra.NoArgs,
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	f.StringVar(&o.class, "class", "", "file with the SecretProviderClass (required; - is standard input)")
	f.StringVar(&o.secret, "secret", "", "file with the ciphertext Secret (- is standard input)")
	f.StringVar(&o.socket, "socket", "", "unix socket of the provider (required)")
	f.StringVar(&o.out, "out", "", "directory to write the files to; created if it does not exist (required)")
	f.StringVar(&o.token, "service-account-token", "", "file with the pod's token for --audience (required)")
	f.StringVar(&o.kubeToken, "kube-token", "", "file with the pod's token for the API server")
	f.StringVar(&o.audience, "audience", "vault", "audience that the token was requested for")
	f.StringVar(&o.pod, "pod", "", "name of the pod (default that of the token, or else \"mount\")")
	f.StringVar(&o.podUID, "pod-uid", "", "uid of the pod (default that of the token)")
	f.StringVar(&o.account, "service-account", "", "service account of the pod (default that of the token)")
	f.StringToStringVar(&o.attributes, "volume-attribute", nil,
		"NAME=VALUE of the pod's volumeAttributes, which override the class's parameters (repeatable)")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long to wait for the provider, as the kubelet does")
	cli.OutputFlag(c, &o.output, "json", "yaml")
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(*cobra.Command, []string) error { return nil }

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	for _, required := range []struct{ flag, value string }{
		{"class", o.class}, {"socket", o.socket}, {"service-account-token", o.token}, {"out", o.out},
	} {
		p.If(required.value == "", "--"+required.flag+" is required")
	}
	p.If(o.class == "-" && o.secret == "-", "--class and --secret cannot both be standard input")
	p.Add(cli.ValidateOutput(o.output, "json", "yaml"))
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	request, err := o.request()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	waited := o.Wait("the provider at " + o.socket)
	response, err := callProvider(ctx, o.socket, request)
	waited()
	if err != nil {
		return err
	}
	return o.write(response)
}

// request returns the request that the driver would send.
func (o *Options) request() (*v1alpha1.MountRequest, error) {
	pod := mountrequest.Pod{Namespace: *o.KubeFlags.Namespace, Name: o.pod, UID: o.podUID, ServiceAccount: o.account,
		Attributes: o.attributes, TargetPath: o.out}
	source, err := o.read(o.class)
	if err == nil {
		pod.Class, err = mountrequest.ParseClass(source)
	}
	if err != nil {
		return nil, display.Errorf("--class: %s: %w", o.class, err)
	}
	for _, t := range []struct{ flag, file, audience string }{
		{"--service-account-token", o.token, o.audience}, {"--kube-token", o.kubeToken, ""},
	} {
		if t.file == "" {
			continue
		}
		text, err := os.ReadFile(t.file)
		token := strings.TrimSpace(string(text))
		if err == nil && token == "" {
			err = errors.New("the file " + t.file + " is empty")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.flag, err)
		}
		pod.Tokens = append(pod.Tokens, mountrequest.Token{Source: t.flag, Audience: t.audience, Text: token})
	}
	if o.secret != "" {
		source, err := o.read(o.secret)
		if err == nil {
			pod.Secret, err = mountrequest.ParseSecret(source)
		}
		if err != nil {
			return nil, display.Errorf("--secret: %s: %w", o.secret, err)
		}
	}
	request, notes, err := pod.Request()
	for _, note := range notes {
		display.Fprintf(o.ErrOut, "note: %s\n", note)
	}
	if errors.Is(err, mountrequest.ErrNamespace) {
		return nil, cli.Usagef("%w; see -n", err)
	}
	return request, err
}

// read reads a file; - is standard input.
func (o *Options) read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(o.In)
	}
	return os.ReadFile(file)
}

// write handles a response as the driver does.
func (o *Options) write(response *v1alpha1.MountResponse) error {
	if code := response.GetError().GetCode(); code != "" {
		return fmt.Errorf("the provider responded with error code %q and no message: see its log", code)
	}
	if response.GetObjectVersion() == nil {
		return errors.New("the provider responded without object versions, which is an error for the driver: see the " +
			"provider's log")
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("making the directory for the files: %w", err)
	}
	if len(response.GetFiles()) == 0 {
		fmt.Fprintln(o.ErrOut, "note: the provider responded with no files: the driver would not change the volume")
	} else if err := fileutil.WritePayloads(o.out, response.GetFiles()); err != nil {
		return fmt.Errorf("writing the files to %s: %w", o.out, err)
	}
	versions := map[string]string{}
	for _, v := range response.GetObjectVersion() {
		versions[v.GetId()] = v.GetVersion()
	}
	files := slices.Clone(response.GetFiles())
	slices.SortFunc(files, func(a, b *v1alpha1.File) int { return strings.Compare(a.GetPath(), b.GetPath()) })
	list := []mountedFile{}
	for _, f := range files {
		list = append(list, mountedFile{f.GetPath(), fmt.Sprintf("%#o", f.GetMode()), len(f.GetContents()),
			versions[f.GetPath()]})
		delete(versions, f.GetPath())
	}
	if err := o.list(list); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(versions)) {
		display.Fprintf(o.ErrOut, "note: object version %s: %s, which is not of a file\n", id, versions[id])
	}
	return nil
}

// mountedFile describes a file. Its JSON is stable: fields are added and never renamed.
type mountedFile struct {
	Path    string `json:"path"`
	Mode    string `json:"mode"` // octal
	Bytes   int    `json:"bytes"`
	Version string `json:"version,omitempty"`
}

func (o *Options) list(files []mountedFile) error {
	if o.output != "" {
		return o.PrintDocument(map[string]any{"files": files}, o.output)
	}
	table := printers.GetNewTabWriter(o.Out)
	fmt.Fprintln(table, "PATH\tMODE\tBYTES\tVERSION")
	for _, f := range files {
		display.Fprintf(table, "%s\t%s\t%d\t%s\n", f.Path, f.Mode, f.Bytes, cmp.Or(f.Version, "-"))
	}
	return table.Flush()
}
