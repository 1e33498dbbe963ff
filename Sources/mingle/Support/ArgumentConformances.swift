public import ArgumentParser
public import MingleSupport

extension LogLevel: ExpressibleByArgument {}
extension BootProtocol: ExpressibleByArgument {}
