public import ArgumentParser
public import MingleSupport

extension LogLevel: ExpressibleByArgument {}
extension BootProtocol: ExpressibleByArgument {}
extension DensityPlan.Mode: ExpressibleByArgument {}
extension SharingChoice.Mode: ExpressibleByArgument {}
extension SharingChoice.Window: ExpressibleByArgument {}
